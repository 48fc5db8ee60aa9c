"""Batches for language models: documents packed into rows, or one a row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.batching import Batches, Counts, cut_pieces, fill
from data.sources.base import Source
from data.tokenizers import BOS, EOS, PAD, Tokenizer
from errors import ConfigError
from registry import unknown

SIDES = ("source", "target", "both")


class _Documents(NamedTuple):
    """The documents of a split.

    A document is BOS text EOS, or BOS source BOS target EOS; the model reads all but its
    last token and predicts all but its first.

    Attributes:
        starts: where the ids of each begin.
        seconds: the place of the second BOS, 0 if there is none.
        lengths: tokens that the model reads; the token at that place is EOS.
    """

    starts: np.ndarray
    seconds: np.ndarray
    lengths: np.ndarray


class _Layout(NamedTuple):
    """Pieces of documents in rows, row after row.

    Attributes:
        documents: which document each piece belongs to.
        offsets: where in the document it begins.
        lengths: its tokens.
        firsts: its first place, counted from the beginning of the first row.
        num_rows: rows of the split.
    """

    documents: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    firsts: np.ndarray
    num_rows: int


class LanguageBatches(Batches):
    """Rows of `sequence_length` tokens, `sequences_per_batch` of them, always that shape.

    A batch has the fields, each (B, T) but the last:
        inputs: BOS and text;
        targets: the token that follows each input, EOS after the last;
        weights: 1 where the target counts; with side "both" only the target text does;
        segments: 1, 2, ... for the documents of a row, 0 where there is none;
        index (B,): which example the row begins with, -1 for rows that hold nothing.

    Packed, documents share rows; which ones do is the same in each epoch, only the order of
    the rows is new, so that every epoch has as many. A document is never cut unless it is
    longer than a row, and no target belongs to another document than its input: with
    segments obeyed, packed and unpacked give the same loss. A document longer than a row
    goes on in another, without what came before. Each token is predicted once an epoch.

    Args:
        source, tokenizer, cache_dir: text, ids, and where the ids are kept.
        seed: another seed, another order of training.
        side: the text of a document, "source", "target" or "both".
        sequence_length, sequences_per_batch: T and B.
        packed: several documents a row; else one.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        side: str = "target",
        sequence_length: int = 128,
        sequences_per_batch: int = 16,
        packed: bool = True,
    ) -> None:
        if side not in SIDES:
            raise ConfigError(f"config.task.side: {unknown('value', side, SIDES)}")
        for name, value, least in (
            ("sequence_length", sequence_length, 2),
            ("sequences_per_batch", sequences_per_batch, 1),
        ):
            if value < least:
                raise ConfigError(f"config.task.{name} must be at least {least}, got {value}.")
        self.side, self.packed = side, packed
        self.sequence_length, self.sequences_per_batch = sequence_length, sequences_per_batch
        options = {
            "seed": seed,
            "side": side,
            "sequence_length": sequence_length,
            "sequences_per_batch": sequences_per_batch,
            "packed": packed,
        }
        super().__init__(source, tokenizer, cache_dir, options)

    def counts(self, split: str) -> Counts:
        documents = self._documents(split)
        num_predicted = int((documents.lengths - documents.seconds).sum())
        return Counts(len(documents.starts), num_predicted, dropped=0, truncated=0)

    def num_batches(self, split: str) -> int:
        return -(-self._layout(split).num_rows // self.sequences_per_batch)

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        layout = self._layout(split)
        row_order = self.plan(
            split, epoch, lambda: self.order(split, epoch, layout.num_rows, "rows")
        )
        first = place * self.sequences_per_batch
        chosen = row_order[first : first + self.sequences_per_batch]
        rows = fill(chosen, self.sequences_per_batch)[:, None]
        places = np.maximum(rows, 0) * self.sequence_length + np.arange(self.sequence_length)
        piece = np.searchsorted(layout.firsts, places, side="right") - 1
        offset = places - layout.firsts[piece]
        inside = (offset < layout.lengths[piece]) & (rows >= 0)
        document, offset = layout.documents[piece], offset + layout.offsets[piece]
        inputs = self._token(split, document, offset)
        targets = self._token(split, document, offset + 1)
        counts = inside & (offset >= self._documents(split).seconds[document])
        return {
            "inputs": np.where(inside, inputs, PAD).astype(np.int32),
            "targets": np.where(inside, targets, PAD).astype(np.int32),
            "weights": counts.astype(np.float32),
            "segments": np.where(inside, piece - piece[:, :1] + 1, 0).astype(np.int32),
            "index": np.where(inside[:, 0], document[:, 0], -1).astype(np.int32),
        }

    def _token(self, split: str, document: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The token at an offset of each document, counted from its first BOS."""
        known = self._documents(split)
        seconds = known.seconds[document]
        is_bos = (offset == 0) | ((seconds > 0) & (offset == seconds))
        is_eos = offset >= known.lengths[document]
        at = known.starts[document] + offset - 1 - ((seconds > 0) & (offset > seconds))
        ids = self.tokens(split).ids[np.where(is_bos | is_eos, 0, at)]
        return np.where(is_bos, BOS, np.where(is_eos, EOS, ids))

    def _documents(self, split: str) -> _Documents:
        return self.once(("documents", split), lambda: self._make_documents(split))

    def _make_documents(self, split: str) -> _Documents:
        tokens = self.tokens(split)
        starts, lengths = tokens.offsets[:-1].reshape(-1, 2), tokens.lengths
        if self.side == "both":
            return _Documents(starts[:, 0], lengths[:, 0] + 1, lengths.sum(1) + 2)
        side = SIDES.index(self.side)
        return _Documents(starts[:, side], np.zeros(len(starts), np.int64), lengths[:, side] + 1)

    def _layout(self, split: str) -> _Layout:
        return self.once(("layout", split), lambda: self._make_layout(split))

    def _make_layout(self, split: str) -> _Layout:
        whole, width = self._documents(split).lengths, self.sequence_length
        documents, offsets, lengths = cut_pieces(whole, width)
        if self.packed:
            firsts, num_rows = pack(lengths, width)
        else:
            firsts, num_rows = np.arange(len(documents)) * width, len(documents)
        by_place = np.argsort(firsts)
        return _Layout(
            documents[by_place],
            offsets[by_place],
            lengths[by_place],
            firsts[by_place],
            num_rows,
        )


def pack(lengths: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Puts pieces into rows of `width` places: best fit, longest piece first.

    Args:
        lengths: of the pieces, none above width.

    Returns:
        The first place of each piece, rows counted one after another, and the number of
        rows. No piece crosses the end of a row.
    """
    firsts = np.zeros(len(lengths), np.int64)
    rows_with: list[list[int]] = [[] for _ in range(width + 1)]  # by free places
    has_rows = 0  # bit n is set where rows_with[n] is not empty
    num_rows = 0
    longest_first = np.argsort(-lengths, kind="stable")
    for piece, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        fitting = has_rows >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[free].pop()
            if not rows_with[free]:
                has_rows &= ~(1 << free)
        else:
            free, row = width, num_rows
            num_rows += 1
        firsts[piece] = row * width + width - free
        if left := free - length:
            rows_with[left].append(row)
            has_rows |= 1 << left
    return firsts, num_rows
