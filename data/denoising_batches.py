"""Batches of text and its corruption: pairs for encoder-decoders, rows for language models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from data.buckets import MULTIPLE
from data.chunk_batches import ChunkBatches, Side
from data.corruption import (
    MASK,
    SENTINELS,
    num_noise,
    permute_sentences,
    prefix_length,
    span_corruption,
    text_infilling,
)
from data.sources.base import Source
from data.tokenizers import BOS, EOS, PAD, Tokenizer

Objective = Literal["span_corruption", "text_infilling", "prefix"]
RESERVED: dict[str, tuple[str, ...]] = {
    "span_corruption": SENTINELS,
    "text_infilling": (MASK,),
    "prefix": (),
}


def corrupted_pair(
    ids: np.ndarray,
    key: int,
    objective: Objective,
    reserved: Mapping[str, int],
    rate: float,
    mean_span: float,
    in_order: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of source and target of a text, as DenoisingBatches says, without their ends.

    Args:
        reserved: of the tokenizer.
        in_order: the same text in the order in which text_infilling reads it; None: as it is.
    """
    if objective == "span_corruption":
        sentinels = [reserved[name] for name in SENTINELS]
        return span_corruption(ids, key, sentinels, rate, mean_span)
    if objective == "text_infilling":
        read = ids if in_order is None else in_order
        return text_infilling(read, key, reserved[MASK], rate, mean_span), ids
    cut = prefix_length(len(ids), key)
    return ids[:cut], ids[cut:]


class DenoisingBatches(ChunkBatches):
    """Corrupted text as source, what is to be found out as target.

    span_corruption: T5's, the hidden spans as target (Raffel et al. 2020).
    text_infilling: BART's, the whole text as target (Lewis et al. 2020).
    prefix: the beginning of the text as source, the rest as target.

    The fields are those of PairBatches, always in one shape.

    Args:
        source, tokenizer, cache_dir, seed, side, sequences_per_batch, packed: as of
            ChunkBatches; the tokenizer has reserved RESERVED[objective].
        sequence_length: tokens of the text in a row.
        rate, mean_span: share of the tokens that is hidden, and the mean length of a span.
        permute: text_infilling also puts the documents of a row, which are its sentences, in
            a random order.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        side: Side,
        objective: Objective,
        sequence_length: int,
        sequences_per_batch: int,
        packed: bool,
        rate: float,
        mean_span: float,
        permute: bool,
    ) -> None:
        self.objective, self.rate = objective, rate
        self.mean_span, self.permute = mean_span, permute
        options = {
            "objective": objective,
            "sequence_length": sequence_length,
            "rate": rate,
            "mean_span": mean_span,
            "permute": permute,
        }
        super().__init__(
            source,
            tokenizer,
            cache_dir,
            seed=seed,
            side=side,
            text_length=sequence_length,
            sequences_per_batch=sequences_per_batch,
            packed=packed,
            options=options,
        )
        self.widths = [-(-width // MULTIPLE) * MULTIPLE for width in self._most_tokens()]

    def pair(self, split: str, number: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of source and target of a chunk."""
        first, stop = self.chunks(split).edges[number : number + 2]
        ids = self.text(split, range(first, stop))
        in_order = None
        if self.objective == "text_infilling" and self.permute:
            in_order = self.text(split, permute_sentences(range(first, stop), key))
        reserved, how = self.tokenizer.reserved, (self.rate, self.mean_span)
        return corrupted_pair(ids, key, self.objective, reserved, *how, in_order)

    def corrupted(self, split: str, numbers: np.ndarray, keys: np.ndarray) -> dict[str, np.ndarray]:
        source, targets, inputs = (
            np.full((len(numbers), width), PAD, np.int32)
            for width in (self.widths[0], self.widths[1], self.widths[1])
        )
        for row in np.flatnonzero(numbers >= 0):
            pair = self.pair(split, int(numbers[row]), int(keys[row]))
            for array, ids in zip((source, targets), pair, strict=True):
                array[row, : len(ids)] = ids
                array[row, len(ids)] = EOS
            inputs[row, 0] = BOS
            inputs[row, 1 : len(pair[1]) + 1] = pair[1]
        weights = (targets != PAD).astype(np.float32)
        return {"source": source, "inputs": inputs, "targets": targets, "weights": weights}

    def _most_tokens(self) -> tuple[int, int]:
        """The longest source and target of a text of at most text_length tokens, with EOS."""
        longest = self.text_length
        if self.objective != "span_corruption":
            return longest + 1, longest + 1
        sizes = [(n, *num_noise(n, self.rate, self.mean_span)) for n in range(1, longest + 1)]
        return (
            max(length - hidden + spans for length, hidden, spans in sizes) + 1,
            max(hidden + spans for _, hidden, spans in sizes) + 1,
        )


class PrefixBatches(ChunkBatches):
    """Rows of text for language models whose beginning is given: the weights are 0 there.

    The fields are those of LanguageBatches, with one segment: BOS and text. Which part is
    given differs from row to row (see corruption.prefix_length). Where marked, segments are -1
    from BOS to the last given token, the place that predicts the first of the rest.

    Args:
        source, tokenizer, cache_dir, seed, side, sequences_per_batch, packed: as of
            ChunkBatches.
        sequence_length: tokens of a row, BOS among them.
        marked: for models that read the prefix both ways.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        side: Side,
        sequence_length: int,
        sequences_per_batch: int,
        packed: bool,
        marked: bool = False,
    ) -> None:
        self.marked = marked
        super().__init__(
            source,
            tokenizer,
            cache_dir,
            seed=seed,
            side=side,
            text_length=sequence_length - 1,
            sequences_per_batch=sequences_per_batch,
            packed=packed,
            options={"sequence_length": sequence_length, **({"marked": True} if marked else {})},
        )

    def corrupted(self, split: str, numbers: np.ndarray, keys: np.ndarray) -> dict[str, np.ndarray]:
        shape = (len(numbers), self.text_length + 1)
        inputs, targets = np.full(shape, PAD, np.int32), np.full(shape, PAD, np.int32)
        weights, segments = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        for row in np.flatnonzero(numbers >= 0):
            first, stop = self.chunks(split).edges[numbers[row] : numbers[row] + 2]
            ids = self.text(split, range(first, stop))
            length = len(ids)
            inputs[row, : length + 1] = [BOS, *ids]
            targets[row, : length + 1] = [*ids, EOS]
            cut = prefix_length(length, int(keys[row]))
            weights[row, cut : length + 1] = 1
            segments[row, : length + 1] = 1
            if self.marked:
                segments[row, : cut + 1] = -1
        return {"inputs": inputs, "targets": targets, "weights": weights, "segments": segments}
