"""Batches for masked language models: pairs of texts in which a few tokens are hidden."""

from pathlib import Path

import numpy as np

from data.chunk_batches import ChunkBatches, Side
from data.corruption import CLS, MASK, SEP, mask_tokens, num_masked
from data.randomness import uniform
from data.sources.base import Source
from data.tokenizers import PAD, Tokenizer

PAIR = 3  # the stream of random numbers that makes pairs; masking has the ones before


class MaskedBatches(ChunkBatches):
    """Rows [CLS] a [SEP] b [SEP] of `sequence_length` tokens (Devlin et al. 2019, 3.1).

    a and b are neighbours: a chunk, cut between two of its documents (within one that is
    longer than half a row). Half of the rows have in place of b a text from elsewhere.
    Without pairs a row is [CLS] text [SEP]. A batch has the fields
        inputs (B, T): what the model reads;
        segments (B, T): 1, and 0 for padding;
        types (B, T): 0 up to the first [SEP], 1 behind it;
        places (B, P): which inputs are to be found out, P = 15 % of T;
        targets, weights (B, P): what stood there; 0 weighs what only fills the row;
        is_next (B,): 1 where b follows a in the text, and pairs (B,) float32: whether that
            counts, 0 in rows that hold nothing;
        index (B,): the document that a row begins with, -1 for rows that hold nothing.

    Args:
        source, tokenizer, cache_dir, seed, side, sequences_per_batch: as of ChunkBatches; the
            tokenizer has reserved [MASK], [CLS] and [SEP].
        sequence_length: T.
        pairs: whether there is a b.
        rate: the share of the text's tokens that is to be found out.
        whole_words: hides all tokens of a word or none.
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
        pairs: bool,
        rate: float,
        whole_words: bool,
    ) -> None:
        self.sequence_length, self.pairs, self.rate = sequence_length, pairs, rate
        text_length = sequence_length - (3 if pairs else 2)
        options = {
            "sequence_length": sequence_length,
            "pairs": pairs,
            "rate": rate,
            "whole_words": whole_words,
        }
        super().__init__(
            source,
            tokenizer,
            cache_dir,
            seed=seed,
            side=side,
            text_length=text_length,
            pieces=2 if pairs else 1,
            sequences_per_batch=sequences_per_batch,
            packed=True,
            options=options,
        )
        self.num_places = num_masked(sequence_length, rate)
        self._others = tokenizer.text_ids()
        self._starts = tokenizer.word_starts() if whole_words else None

    def corrupted(self, split: str, numbers: np.ndarray, keys: np.ndarray) -> dict[str, np.ndarray]:
        reserved = self.tokenizer.reserved
        shape = (len(numbers), self.sequence_length)
        ids, types = np.full(shape, PAD, np.int64), np.zeros(shape, np.int32)
        maskable, begins = np.zeros(shape, bool), np.zeros(shape, bool)
        is_next, counts = np.zeros(shape[0], np.int32), np.zeros(shape[0], np.float32)
        for row in np.flatnonzero(numbers >= 0):
            parts, follows = self._parts(split, int(numbers[row]), int(keys[row]))
            ids[row, 0], at = reserved[CLS], 1
            for type_, part in enumerate(parts):
                end = at + len(part)
                ids[row, at:end], ids[row, end] = part, reserved[SEP]
                maskable[row, at:end], begins[row, at] = True, True
                types[row, at : end + 1] = type_
                at = end + 1
            is_next[row], counts[row] = follows or 0, follows is not None
        masked = mask_tokens(
            ids,
            keys,
            maskable,
            mask_id=reserved[MASK],
            others=self._others,
            rate=self.rate,
            starts=None if self._starts is None else self._starts[ids] | begins,
        )
        return {
            "inputs": masked.inputs.astype(np.int32),
            "segments": (ids != PAD).astype(np.int32),
            "types": types,
            "places": masked.places,
            "targets": masked.targets.astype(np.int32),
            "weights": masked.weights,
            "is_next": is_next,
            "pairs": counts,
        }

    def _parts(self, split: str, number: int, key: int) -> tuple[list[np.ndarray], bool | None]:
        """The texts of a row, and whether the second follows the first; None: no question."""
        first, stop = self.chunks(split).edges[number : number + 2]
        if not self.pairs:
            return [self.text(split, range(first, stop))], None
        where, which, elsewhere = uniform(key, 3, PAIR)
        middle = first + 1 + int(where * (stop - first - 1))
        a = self.text(split, range(first, middle))
        room = self.text_length - len(a)
        if middle < stop and which < 0.5:
            return [a, self.text(split, range(middle, stop))], True
        other = self._elsewhere(split, first, stop, room, elsewhere)
        return ([a], None) if other is None else ([a, other], False)

    def _elsewhere(
        self, split: str, first: int, stop: int, room: int, where: float
    ) -> np.ndarray | None:
        """A text from outside a chunk: as many neighbours as fit into the room, as in a chunk,
        so that its length does not tell it from what follows. None where all text is inside."""
        lengths = self.chunks(split).lengths
        outside = np.ones(len(lengths), bool)
        outside[first:stop] = False
        fitting = np.flatnonzero(outside & (lengths <= room))
        chosen = fitting if len(fitting) else np.flatnonzero(outside)
        if not len(chosen):
            return None
        begin = int(chosen[int(where * len(chosen))])
        limit = first if begin < first else len(lengths)
        ends = np.cumsum(lengths[begin : min(limit, begin + room)] + len(self.joint))
        count = int(np.searchsorted(ends, room + len(self.joint), side="right"))
        return self.text(split, range(begin, begin + max(count, 1)))[:room]
