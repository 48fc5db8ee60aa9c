"""Batches for truncated back-propagation: pieces of long streams, one after another."""

from typing import Any, NamedTuple

import numpy as np

from data.language_batches import LanguageBatches
from data.tokenizers import PAD


class _Streams(NamedTuple):
    """The documents of an epoch side by side, cut into streams.

    Attributes:
        documents: in their order.
        starts: where each begins, counted in tokens from the first.
        firsts, ends: of the streams.
    """

    documents: np.ndarray
    starts: np.ndarray
    firsts: np.ndarray
    ends: np.ndarray


class StreamBatches(LanguageBatches):
    """Rows that go on where the same row of the batch before ended.

    The documents of a split follow one another, in training in a new order each epoch, and
    are cut into `sequences_per_batch` streams. Batch i of an epoch has the i-th piece of
    `sequence_length` tokens of every stream. In training the streams are equally long, so
    some begin within a document; in validation and test they begin with one, so that no
    number of streams changes a token's past.

    The fields are those of LanguageBatches but for the segments: 1 goes on with what the row
    before ended in, 2, 3, ... begin in this row, with the state that a document begins with.
    Each token is predicted once an epoch.

    Args:
        truncate: tokens of a row in training, at least sequence_length: what comes before
            the piece was read by earlier batches and is read again, with weight 0.
    """

    def __init__(self, *given: Any, truncate: int, **options: Any) -> None:
        super().__init__(*given, **options)
        self.reread = truncate - self.sequence_length
        self.options["truncate"] = truncate

    def num_batches(self, split: str) -> int:
        streams = self._streams(split, 0)  # as long in every epoch
        return int(-(-(streams.ends - streams.firsts).max() // self.sequence_length))

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        documents, starts, firsts, ends = self._streams(split, epoch)
        reread = self.reread if split == "train" else 0
        columns = np.arange(-reread, self.sequence_length)
        in_stream = np.broadcast_to(
            place * self.sequence_length + columns, (len(firsts), len(columns))
        )
        places = firsts[:, None] + in_stream
        inside = (in_stream >= 0) & (places < ends[:, None])
        at = np.searchsorted(starts, np.where(inside, places, 0), side="right") - 1
        document, offset = documents[at], np.where(inside, places, 0) - starts[at]
        begins = inside & ((offset == 0) | (in_stream == 0))
        counts = inside & (columns >= 0) & (offset >= self._documents(split).seconds[document])
        inputs = self._token(split, document, offset)
        targets = self._token(split, document, offset + 1)
        return {
            "inputs": np.where(inside, inputs, PAD).astype(np.int32),
            "targets": np.where(inside, targets, PAD).astype(np.int32),
            "weights": counts.astype(np.float32),
            "segments": np.where(inside, 1 + begins.cumsum(axis=1), 0).astype(np.int32),
            "index": np.where(inside[:, reread], document[:, reread], -1).astype(np.int32),
        }

    def _streams(self, split: str, epoch: int) -> _Streams:
        return self.plan(split, epoch, lambda: self._cut(split, epoch))

    def _cut(self, split: str, epoch: int) -> _Streams:
        lengths = self._documents(split).lengths
        order = self.order(split, epoch, len(lengths), "documents")
        starts = lengths[order].cumsum() - lengths[order]
        total, count = int(lengths.sum()), self.sequences_per_batch
        even = np.minimum(np.arange(count) * -(-total // count), total)
        if split != "train":
            even = np.append(starts, total)[np.searchsorted(starts, even)]
        return _Streams(order, starts, even, np.append(even[1:], total))
