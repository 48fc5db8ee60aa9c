"""Batches made of chunks of text: a run of neighbouring documents in each row."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.batching import Batches, Counts, cut_pieces, fill
from data.randomness import keys_of
from data.sources.base import Source
from data.tokenizers import Tokenizer

Side = Literal["source", "target"]


class Chunks(NamedTuple):
    """The text of a split, cut into chunks.

    Attributes:
        starts, lengths: where the ids of each piece begin, and how many they are. A piece is
            a document, or a part of one that is too long.
        documents, offsets: which document a piece belongs to, and where in it it begins.
        edges: chunk i has the pieces edges[i] to edges[i + 1] - 1.
    """

    starts: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    offsets: np.ndarray
    edges: np.ndarray


class ChunkBatches(Batches):
    """Rows that each begin as a chunk of text and are then corrupted.

    The documents of a split, which are the lines of a file or the verses of a book, follow one
    another in their order, and as many neighbours as fit are a chunk. The chunks are the same
    in each epoch; their order in training is new, and so is what a subclass makes of them,
    which depends on the seed, the epoch and the number of the chunk. In validation and test it
    depends on the number alone: every seed and every epoch sees the same.

    Args:
        source, tokenizer, cache_dir: text, ids, and where the ids are kept.
        seed: another seed, another order and another corruption of training.
        side: the text that is used.
        text_length: tokens of a chunk at most.
        sequences_per_batch: rows.
        packed: several documents in a chunk; else one.
        options: what else decides the rows.
        pieces: how many of them a chunk always has room for; longer documents are cut.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        side: Side,
        text_length: int,
        sequences_per_batch: int,
        packed: bool,
        options: dict[str, Any],
        pieces: int = 1,
    ) -> None:
        self.side, self.packed, self.sequences_per_batch = side, packed, sequences_per_batch
        self.text_length = text_length
        options = {
            "seed": seed,
            "side": side,
            "sequences_per_batch": sequences_per_batch,
            "packed": packed,
            **options,
        }
        super().__init__(source, tokenizer, cache_dir, options)
        self.joint = np.array(tokenizer.space(), np.int64)
        self.piece_length = (text_length - (pieces - 1) * len(self.joint)) // pieces

    def corrupted(self, split: str, numbers: np.ndarray, keys: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of some chunks, but for their index.

        Args:
            numbers: of chunks; -1 for a row that holds nothing.
            keys: for what is random in each row.
        """
        raise NotImplementedError

    def counts(self, split: str) -> Counts:
        """Chunks, and the tokens that one pass predicts: in training those of epoch 0."""
        batches = (self.rows(split, 0, place) for place in range(self.num_batches(split)))
        predicted = int(sum(batch["weights"].sum() for batch in batches))
        return Counts(self._num_chunks(split), predicted, dropped=0, truncated=0)

    def num_examples(self, split: str) -> int:
        return self._num_chunks(split)

    def num_batches(self, split: str) -> int:
        return -(-self._num_chunks(split) // self.sequences_per_batch)

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        chunks = self.chunks(split)
        order = self.plan(
            split, epoch, lambda: self.order(split, epoch, self._num_chunks(split), "chunks")
        )
        first = place * self.sequences_per_batch
        numbers = fill(order[first : first + self.sequences_per_batch], self.sequences_per_batch)
        seed = self.options["seed"] if split == "train" else "held out"
        batch = self.corrupted(split, numbers, keys_of(numbers, "corruption", seed, epoch))
        index = chunks.documents[chunks.edges[np.maximum(numbers, 0)]]
        return {**batch, "index": np.where(numbers >= 0, index, -1).astype(np.int32)}

    def chunks(self, split: str) -> Chunks:
        """The chunks of a split."""
        return self.once(("chunks", split), lambda: self._cut(split))

    def text(self, split: str, pieces: Iterable[int]) -> np.ndarray:
        """The ids of pieces, one after another, int64."""
        chunks, ids = self.chunks(split), self.tokens(split).ids
        parts: list[np.ndarray] = []
        for i in pieces:
            if parts and chunks.offsets[i] == 0:
                parts.append(self.joint)
            parts.append(ids[chunks.starts[i] : chunks.starts[i] + chunks.lengths[i]])
        return np.concatenate(parts).astype(np.int64)

    def _num_chunks(self, split: str) -> int:
        return len(self.chunks(split).edges) - 1

    def _cut(self, split: str) -> Chunks:
        tokens, side = self.tokens(split), ("source", "target").index(self.side)
        whole = tokens.lengths[:, side]
        documents, offsets, lengths = cut_pieces(whole, self.piece_length)
        starts = tokens.offsets[:-1].reshape(-1, 2)[documents, side] + offsets
        edges = list(range(len(lengths) + 1))
        if self.packed:
            ends, edges = np.cumsum(lengths + len(self.joint)), [0]
            while edges[-1] < len(lengths):
                before = ends[edges[-1] - 1] if edges[-1] else 0
                most = before + self.text_length + len(self.joint)
                edges.append(int(np.searchsorted(ends, most, side="right")))
        return Chunks(starts, lengths, documents, offsets, np.array(edges))
