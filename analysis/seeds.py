"""What a few seeds say: bands, differences, and how sure one can be. NumPy only.

Runs of one config that differ in their seed are draws from one distribution; a mean over S of
them has an uncertainty, which a bootstrap over seeds (Efron 1979) and a permutation of signs
(Fisher 1935) estimate without a model of the distribution. Both know only the S values: with
three seeds the bootstrap draws 10 different samples, so its bands are too narrow, and no
permutation test can come below p = 0.25. `what_can_be_said` says so.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
MAX_EXACT = 4096  # samples that are listed instead of drawn
NUM_DRAWN = 4000


class Band(NamedTuple):
    """A mean over seeds with its bootstrap interval; arrays or numbers."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Difference(NamedTuple):
    """One config against another, paired by seed.

    Attributes:
        mean: of first minus second.
        low, high: bootstrap interval over the pairs.
        p: two-sided, of the permutation of signs; None with fewer than two pairs.
        num_pairs: seeds that both have.
        least_p: the smallest p that so many pairs can give.
    """

    mean: float
    low: float
    high: float
    p: float | None
    num_pairs: int
    least_p: float | None


def band(values_SX: np.ndarray, level: float = LEVEL) -> Band:
    """Mean over the first axis, and the percentile bootstrap interval of that mean.

    Up to five seeds all S^S samples are listed; for more, NUM_DRAWN are drawn, always the same.
    """
    values_SX = np.asarray(values_SX, np.float64)
    num = len(values_SX)
    if num**num <= MAX_EXACT:
        picks = np.array(list(itertools.product(range(num), repeat=num)))
    else:
        picks = np.random.Generator(np.random.PCG64(0)).integers(0, num, (NUM_DRAWN, num))
    shares_RS = (picks[:, :, None] == np.arange(num)).mean(axis=1)
    means_RX = np.tensordot(shares_RS, values_SX, axes=1)
    low, high = np.quantile(means_RX, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(values_SX.mean(axis=0), low, high)


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compares two configs over the same seeds, in the same order.

    p is the share of the 2^n changes of sign of the differences whose |mean| is at least the one
    found: all of them up to 12 pairs, else NUM_DRAWN drawn ones and the one found.
    """
    found_S = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    num, (mean, low, high) = len(found_S), band(found_S)
    if num < 2:
        return Difference(float(mean), float(low), float(high), None, num, None)
    if 2**num <= MAX_EXACT:
        signs_RS = np.array(list(itertools.product([1, -1], repeat=num)))
    else:
        drawn = np.random.Generator(np.random.PCG64(0)).choice([1, -1], (NUM_DRAWN, num))
        signs_RS = np.concatenate([np.ones((1, num)), drawn])
    means_R = np.abs((signs_RS * found_S).mean(axis=1))
    p = float((means_R >= abs(mean) * (1 - 1e-12)).mean())
    least = max(2.0 ** (1 - num), 1 / len(signs_RS))
    return Difference(float(mean), float(low), float(high), p, num, least)


def what_can_be_said(num_seeds: int) -> str:
    """How far so many seeds reach, in a sentence for the reader of a table."""
    if num_seeds < 2:
        return (
            "With one seed nothing can be said about the spread between seeds: a difference may be "
            "chance, and no band or p-value is given."
        )
    least = 2.0 ** (1 - num_seeds)
    said = (
        f"Paired over {num_seeds} seeds: intervals are percentile bootstraps over seeds, p-values "
        f"a two-sided permutation of signs, which cannot come below {least:.3g} with so few pairs."
    )
    if num_seeds < 6:
        said += (
            " No difference can reach p < 0.05 here, however large, and the bootstrap intervals "
            "are too narrow: take them for the range that the seeds span."
        )
    return said
