"""How sure a difference between two systems is: paired bootstrap over examples.

Efron & Tibshirani (1993); for scores of a corpus Koehn (2004). Axes: R resamples, E examples,
M comparisons.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import sacrebleu

from data.resamples import resamples


class Compared(NamedTuple):
    """Differences from a baseline, (M,): with the interval that holds 95 % of the resamples,
    and p of both sides, adjusted for the number of comparisons (see `adjusted`)."""

    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def compare(change_M: np.ndarray, resampled_RM: np.ndarray) -> Compared:
    """Intervals by percentiles; p = 2 min(P(d <= 0), P(d >= 0)), at least 2 / (R + 1)."""
    low, high = np.quantile(resampled_RM, (0.025, 0.975), axis=0)
    tails = [(resampled_RM <= 0).sum(0), (resampled_RM >= 0).sum(0)]
    p_M = np.minimum(1, 2 * (1 + np.minimum(*tails)) / (1 + len(resampled_RM)))
    return Compared(change_M, low, high, adjusted(p_M))


def compare_means(
    changes_ME: np.ndarray, weights_E: np.ndarray, num_resamples: int, seed: int
) -> Compared:
    """Of sum_e changes / sum_e weights, such as nats over tokens."""
    resampled = [
        counts_RE @ changes_ME.T / (counts_RE @ weights_E)[:, None]
        for counts_RE in resamples(len(weights_E), num_resamples, seed)
    ]
    return compare(changes_ME.sum(1) / weights_E.sum(), np.concatenate(resampled))


def adjusted(p_M: np.ndarray) -> np.ndarray:
    """The smallest false discovery rate at which each is found (Benjamini & Hochberg 1995)."""
    order = np.argsort(p_M)
    scaled = p_M[order] * len(p_M) / np.arange(1, len(p_M) + 1)
    found = np.empty_like(scaled)
    found[order] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return found


def bleu_statistics(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What sacreBLEU sums over sentences: lengths of both, n-grams that match, n-grams, (E, 10)."""
    metric = sacrebleu.BLEU()
    scores = [
        metric.corpus_score([output], [[reference]])
        for output, reference in zip(outputs, references, strict=True)
    ]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], np.int64)


def bleu(sums: np.ndarray) -> float:
    """BLEU of a corpus with these sums (10,), in percent, by sacreBLEU."""
    sys_len, ref_len, *rest = (int(x) for x in sums)
    found = sacrebleu.BLEU.compute_bleu(rest[:4], rest[4:], sys_len, ref_len, smooth_method="exp")
    return found.score


def compare_scores(
    score: Callable[[np.ndarray], float],
    baseline: np.ndarray,
    others: Sequence[np.ndarray],
    num_resamples: int,
    seed: int,
) -> Compared:
    """Of a score of summed statistics (E, ...), such as `bleu`: others minus baseline."""

    def differences(counts_E: np.ndarray) -> list[float]:
        known = score(counts_E @ baseline)
        return [score(counts_E @ other) - known for other in others]

    resampled = [
        differences(counts_E)
        for counts_RE in resamples(len(baseline), num_resamples, seed)
        for counts_E in counts_RE
    ]
    change = differences(np.ones(len(baseline), np.int64))
    return compare(np.array(change), np.array(resampled))
