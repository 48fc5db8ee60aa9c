"""Scores of a corpus by the length of its sentences, with bands. NumPy only.

A score of a corpus (BLEU, an error rate) is no mean over sentences, but a function of sums over
them: what each sentence adds, a row of statistics, is all that bins and bootstraps need.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analysis.seeds import LEVEL, Band

NUM_DRAWN = 1000

Score = Callable[[np.ndarray], float]


class Bins(NamedTuple):
    """Bins of whole numbers; none is empty.

    Attributes:
        first, last: the least and the greatest number that each bin holds.
        of_N: the bin of each number.
    """

    first: np.ndarray
    last: np.ndarray
    of_N: np.ndarray


def quantile_bins(length_N: np.ndarray, num: int) -> Bins:
    """Bins that hold about as many sentences each, as far as whole lengths allow.

    A bin ends at a length that occurs and holds all sentences of it, so that equal lengths are
    never parted; where one length fills several quantiles, there are fewer bins than `num`.
    """
    shares = np.arange(1, num + 1) / num
    last = np.unique(np.quantile(length_N, shares, method="inverted_cdf"))
    of_N = np.searchsorted(last, length_N)
    first = np.array([length_N[of_N == i].min() for i in range(len(last))])
    return Bins(first, last, of_N)


def corpus_band(stats_RNX: np.ndarray, score: Score, num_drawn: int = NUM_DRAWN) -> Band:
    """The mean of a corpus score over R runs, and its percentile bootstrap interval.

    Each sample draws N of the sentences, the same for all runs (Koehn 2004), and R of the runs,
    both with replacement. With one run the interval is over sentences alone; with a few, their
    share of it is too narrow (see analysis.seeds). The same draws for all of one N and R.

    Args:
        stats_RNX: what each sentence adds, for each run.
        score: the score of sums (X,).
    """
    num_runs, num, _ = stats_RNX.shape
    random = np.random.Generator(np.random.PCG64(0))
    counts_DN = random.multinomial(num, np.full(num, 1 / num), num_drawn)
    runs_DR = random.integers(0, num_runs, (num_drawn, num_runs))
    sums_RDX = counts_DN @ stats_RNX
    scores_RD = np.array([[score(sums_X) for sums_X in sums_DX] for sums_DX in sums_RDX])
    means_D = np.take_along_axis(scores_RD.T, runs_DR, axis=1).mean(axis=1)
    low, high = np.quantile(means_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    scores_R = np.array([score(sums_X) for sums_X in stats_RNX.sum(axis=1)])
    return Band(scores_R.mean(axis=0), low, high)
