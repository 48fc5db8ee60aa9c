"""Corruptions of text that a model learns to undo: pure functions of (ids, key).

The same ids and key give the same corruption on every machine; keys come from
randomness.keys_of, so that a batch is a function of its numbers and nothing is stored.
Ids that stand for no text ([MASK], [CLS], [SEP], sentinels) are those that a tokenizer
reserves (Tokenizer.reserve).
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from data.randomness import uniform

Sentence = TypeVar("Sentence")

MASK, CLS, SEP = "[MASK]", "[CLS]", "[SEP]"
NUM_SENTINELS = 100  # as many as T5 has
SENTINELS = tuple(f"<extra_id_{i}>" for i in range(NUM_SENTINELS))

MASKED, REPLACED = 0.8, 0.1  # shares of the chosen tokens (Devlin et al. 2019); the rest stays


class Masked(NamedTuple):
    """Rows of which a few tokens are to be found out.

    Attributes:
        inputs: (B, T), with what the model reads in the chosen places.
        places: (B, P), the chosen places of each row in their order, then 0.
        targets: (B, P), what stood there.
        weights: (B, P), 1 for a chosen place, 0 for what only fills the row.
    """

    inputs: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def num_masked(length: int, rate: float) -> int:
    """How many of so many tokens BERT chooses: the rate, at least one."""
    return min(length, max(1, round(length * rate)))


def mask_tokens(
    ids: np.ndarray,
    keys: np.ndarray,
    maskable: np.ndarray,
    *,
    mask_id: int,
    others: np.ndarray,
    rate: float = 0.15,
    starts: np.ndarray | None = None,
) -> Masked:
    """BERT's masking (Devlin et al. 2019, 3.1): of the chosen tokens 80 % become [MASK], 10 %
    another token, 10 % stay.

    Of each row num_masked(its maskable tokens) are chosen, exactly; whole words instead of
    tokens where `starts` is given, and then no word that would exceed that number.

    Args:
        ids: (B, T) int.
        keys: (B,) uint64.
        maskable: (B, T) bool, False for padding and special ids.
        mask_id: of [MASK].
        others: the ids that a replacement is drawn from.
        starts: (B, T) bool, True where a word begins.
    """
    num_places = num_masked(ids.shape[1], rate)
    places = np.zeros((len(ids), num_places), np.int32)
    weights = np.zeros((len(ids), num_places), np.float32)
    words = maskable if starts is None else maskable & starts
    for row, key in enumerate(keys):
        chosen = _choose_words(maskable[row], words[row], int(key), rate)
        places[row, : len(chosen)] = chosen
        weights[row, : len(chosen)] = 1
    targets = np.take_along_axis(ids, places, axis=1)
    fate = uniform(keys, num_places, stream=1)
    drawn = others[(uniform(keys, num_places, stream=2) * len(others)).astype(np.int64)]
    read = np.where(fate < MASKED, mask_id, np.where(fate < MASKED + REPLACED, drawn, targets))
    inputs = ids.copy()
    hidden = np.nonzero(weights)
    inputs[hidden[0], places[hidden]] = read[hidden]
    return Masked(inputs, places, np.where(weights > 0, targets, 0), weights)


def _choose_words(maskable: np.ndarray, starts: np.ndarray, key: int, rate: float) -> np.ndarray:
    """Places of the words that come first in a random order, as many as fit."""
    known = np.flatnonzero(maskable)
    if not len(known):
        return known
    word = np.cumsum(starts[known])  # what precedes the first start is a word as well
    _, first, lengths = np.unique(word, return_index=True, return_counts=True)
    left, chosen = num_masked(len(known), rate), []
    for i in np.argsort(uniform(key, len(first)), kind="stable"):
        if lengths[i] <= left:
            chosen.append(known[first[i] : first[i] + lengths[i]])
            left -= lengths[i]
        if not left:
            break
    return np.sort(np.concatenate(chosen)) if chosen else known[:0]


# ------------------------------------------------------------------- text to text


def num_noise(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """How many of so many tokens T5 hides, and in how many spans."""
    tokens = min(max(round(length * rate), 1), max(length - 1, 1))
    spans = max(round(tokens / mean_span), 1)
    return tokens, min(spans, tokens, max(length - tokens, 1))


def noise_mask(length: int, key: int, rate: float = 0.15, mean_span: float = 3.0) -> np.ndarray:
    """Which tokens are hidden: T5's random_spans_noise_mask (Raffel et al. 2020).

    Kept and hidden spans alternate, a kept one first and a hidden one last, as there; both
    kinds are drawn uniformly from the ways to cut so many tokens into so many spans.

    Returns:
        (length,) bool. A text of one token is hidden as a whole.
    """
    if length == 1:
        return np.ones(1, bool)
    num_hidden, num_spans = num_noise(length, rate, mean_span)
    hidden = _cut(num_hidden, num_spans, key, stream=1)
    kept = _cut(length - num_hidden, num_spans, key, stream=2)
    spans = np.stack([kept, hidden], axis=1).ravel()
    return np.repeat(np.arange(len(spans)) % 2 == 1, spans)


def _cut(length: int, num_parts: int, key: int, stream: int) -> np.ndarray:
    """Lengths, each at least 1, of a random cut into parts."""
    order = np.argsort(uniform(key, length - 1, stream), kind="stable")
    inner = np.sort(order[: num_parts - 1] + 1)
    return np.diff(np.concatenate([[0], inner, [length]]))


def span_corruption(
    ids: np.ndarray,
    key: int,
    sentinels: Sequence[int],
    rate: float = 0.15,
    mean_span: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """T5's objective: (source, target) of a text (Raffel et al. 2020, 3.1.4).

    The source has a sentinel for each hidden span, another one for each; the target has each
    sentinel and what it stands for. Every token is in one of the two.

    >>> span_corruption(np.arange(10, 20), 1, [100, 101], rate=0.3)
    (array([ 10,  11,  12,  13,  14,  15,  16, 100]), array([100,  17,  18,  19]))
    """
    hidden = noise_mask(len(ids), key, rate, mean_span)
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    at = np.flatnonzero(begins)
    marks = np.asarray(sentinels)[: len(at)]
    source = ids.copy()
    source[at] = marks
    return source[~hidden | begins], np.insert(ids[hidden], np.cumsum(hidden)[at] - 1, marks)


def text_infilling(
    ids: np.ndarray, key: int, mask_id: int, rate: float = 0.3, mean_span: float = 3.0
) -> np.ndarray:
    """BART's main noise: spans of Poisson lengths, each behind one [MASK] (Lewis et al. 2020).

    Exactly round(rate * length) tokens are hidden, at least one; the last span ends with them.
    A span of length 0 is a [MASK] between two tokens. There are never more masks than hidden
    tokens, so that the text grows no longer. Spans are placed uniformly and may touch.
    """
    num_hidden = num_masked(len(ids), rate)
    spans = _poisson_spans(num_hidden, key, mean_span)
    num_kept = len(ids) - int(spans.sum())
    order = np.argsort(uniform(key, num_kept + len(spans), stream=2), kind="stable")
    is_span = np.zeros(num_kept + len(spans), bool)
    is_span[order[: len(spans)]] = True
    widths = np.ones(len(is_span), np.int64)
    widths[is_span] = spans
    begins = np.cumsum(widths) - widths
    return np.where(is_span, mask_id, ids[np.minimum(begins, len(ids) - 1)])


def _poisson_spans(total: int, key: int, mean: float) -> np.ndarray:
    """Poisson lengths whose sum is `total`, which the last one is fitted to; at most `total`."""
    steps = np.arange(1, 20 + int(10 * mean))
    chances = np.exp(-mean) * np.cumprod(np.concatenate([[1.0], mean / steps]))
    drawn = np.searchsorted(np.cumsum(chances), uniform(key, total, stream=1), side="right")
    ends = np.cumsum(drawn)
    ends = ends[: int(np.searchsorted(ends, total)) + 1]
    ends[-1] = total  # also where so many lengths do not come to it
    return np.diff(ends, prepend=0)


def permute_sentences(sentences: Sequence[Sentence], key: int) -> list[Sentence]:
    """The sentences of a text, or whatever stands for them, in a random order (Lewis et al.
    2020)."""
    order = np.argsort(uniform(key, len(sentences)), kind="stable")
    return [sentences[i] for i in order]


def prefix_length(length: int, key: int) -> int:
    """Where a text is cut into a prefix, which is given, and the rest, which is predicted:
    uniformly from 1 to length - 1 (Raffel et al. 2020, 3.2.3); 0 of a single token."""
    return 1 + int(uniform(key, 1)[0] * (length - 1)) if length > 1 else 0
