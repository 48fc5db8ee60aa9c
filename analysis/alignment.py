"""Alignments of words: from attention weights, against known links, and two against each other.

Links are sets of (source, target) positions, counted from 0. Axes: T target, S source words,
W pieces of the tokenizer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Link = tuple[int, int]


def word_weights(
    weights_TS: np.ndarray, source_words: Sequence[int], target_words: Sequence[int]
) -> np.ndarray:
    """Weights between words from weights between pieces.

    A word receives the sum of what its pieces receive and gives the mean of what they give,
    so that the weights of each target word still sum to one (Zenkel et al. 2019).

    Args:
        weights_TS: target pieces by source pieces.
        source_words, target_words: the word of each piece, ascending from 0; -1 for pieces
            that belong to none, such as EOS, whose weights are left out.
    """
    to_source = _membership(source_words)
    to_target = _membership(target_words)
    summed_TS = to_target.T @ weights_TS[: len(target_words), : len(source_words)] @ to_source
    return summed_TS / np.maximum(to_target.sum(axis=0), 1)[:, None]


def word_of_each_piece(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The word, counted from 0, that each piece belongs to, or -1 before the first one."""
    return [len(tokenizer.decode(ids[: i + 1]).split()) - 1 for i in range(len(ids))]


def _membership(words: Sequence[int]) -> np.ndarray:
    """(pieces, words) with 1 where a piece belongs to a word."""
    return (np.asarray(words)[:, None] == np.arange(max(words, default=-1) + 1)).astype(float)


def hard_links(weights_TS: np.ndarray) -> set[Link]:
    """Each target word to the source word with the largest weight, if it is above 0."""
    best_T = weights_TS.argmax(axis=1)
    return {(int(s), t) for t, s in enumerate(best_T) if weights_TS[t, s] > 0}


def soft_links(weights_TS: np.ndarray, threshold: float = 0.15) -> set[Link]:
    """All pairs whose weight is above the threshold."""
    return {(int(s), int(t)) for t, s in zip(*np.nonzero(weights_TS > threshold), strict=True)}


def entropy(weights_TS: np.ndarray) -> float:
    """Mean over target words of -sum p ln p in nats: 0 looks at one word, ln S at all alike."""
    share_TS = weights_TS / np.maximum(weights_TS.sum(axis=1, keepdims=True), 1e-30)
    logs_TS = np.log(np.where(share_TS > 0, share_TS, 1))
    return float(-(share_TS * logs_TS).sum(axis=1).mean())


def agreement(one_TS: np.ndarray, other_TS: np.ndarray) -> float:
    """Share of target words that two sets of weights align to the same source word."""
    return float((one_TS.argmax(axis=1) == other_TS.argmax(axis=1)).mean())


class ErrorCounts:
    """Alignment error rate over many sentences (Och & Ney 2003).

    AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)
    """

    def __init__(self) -> None:
        self.found = self.sure = self.in_sure = self.in_possible = 0

    def add(
        self, found: Iterable[Link], sure: Iterable[Link], possible: Iterable[Link] = ()
    ) -> None:
        """Counts a sentence; sure links are possible ones too."""
        found, sure = set(found), set(sure)
        self.found, self.sure = self.found + len(found), self.sure + len(sure)
        self.in_sure += len(found & sure)
        self.in_possible += len(found & (sure | set(possible)))

    @property
    def precision(self) -> float:
        return self.in_possible / max(self.found, 1)

    @property
    def recall(self) -> float:
        return self.in_sure / max(self.sure, 1)

    @property
    def error_rate(self) -> float:
        """Between 0 (all sure links, no impossible one) and 1."""
        return 1 - (self.in_sure + self.in_possible) / max(self.found + self.sure, 1)
