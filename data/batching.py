"""What all batches share: an order for each epoch, random access, and checked ids.

A batch is a pure function of (seed, split, step): no state is kept, any step can be asked
for at any time, and a run that resumes needs only its step. Training repeats its examples
in a new order each epoch; validation and test have one pass in a fixed order.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.files import digest
from data.randomness import shuffled
from data.sources.base import SPLITS, Example, Source
from data.token_cache import Tokens, load_tokens
from data.tokenizers import PAD, Tokenizer
from errors import DataError

FORMAT = 1  # of the batches; another number when the same options give other batches
ID_FIELDS = ("source", "inputs", "targets")


class Counts(NamedTuple):
    """What one pass over a split holds.

    Attributes:
        examples: those that stand in a batch.
        tokens: predicted tokens, the sum of all weights.
        dropped: training examples left out because they are too long.
        truncated: validation or test examples that lost their end because they are too long.
    """

    examples: int
    tokens: int
    dropped: int
    truncated: int


class Batches:
    """Batches of a source; a subclass lays out the rows.

    Attributes:
        options: what the batches depend on besides text and tokenizer.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, cache_dir: str | Path, options: dict):
        self.source, self.tokenizer, self.cache_dir = source, tokenizer, cache_dir
        self.options = options
        self._known: dict[Any, Any] = {}
        self._lock = threading.RLock()  # a prefetching thread and an evaluation may both ask

    def fingerprint(self) -> str:
        """A digest of the text and the options; the tokenizer has one of its own."""
        return digest([type(self).__name__, FORMAT, self.source.fingerprint(), self.options])

    def tokens(self, split: str) -> Tokens:
        """The ids of a split."""
        return self.once(
            ("tokens", split),
            lambda: load_tokens(self.source, self.tokenizer, split, self.cache_dir),
        )

    def examples(self, split: str) -> list[Example]:
        """All examples of a split; "index" in a batch counts in this list."""
        return self.source.pairs(split)

    def num_examples(self, split: str) -> int:
        """Examples that one pass over a split has."""
        return self.counts(split).examples

    def counts(self, split: str) -> Counts:
        """How many examples and tokens one pass over a split has."""
        raise NotImplementedError

    def num_batches(self, split: str) -> int:
        """Steps of one pass over a split."""
        raise NotImplementedError

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        """The batch at a place (0 to num_batches - 1) of an epoch."""
        raise NotImplementedError

    def batch(self, split: str, step: int) -> dict[str, np.ndarray]:
        """The batch of a step: int32 ids and float32 weights, by the names of the fields.

        Raises:
            DataError: no such split, or a step that the split does not have.
        """
        if split not in SPLITS:
            raise DataError(f"no split {split!r}. Known: {', '.join(SPLITS)}.")
        size = self.num_batches(split)
        if step < 0 or (split != "train" and step >= size):
            raise DataError(f"step {step} of {split}, which has steps 0 to {size - 1}.")
        batch = self.rows(split, *divmod(step, size))
        check_ids(batch, self.tokenizer.vocab_size)
        return batch

    def order(self, split: str, epoch: int, count: int, what: str = "examples") -> np.ndarray:
        """The numbers below count: shuffled anew each epoch in training, else as they are."""
        if split != "train":
            return np.arange(count)
        return shuffled(count, f"{self.options['seed']} {what} {epoch}")

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """The value of a key, made at the first call."""
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
            return self._known[key]

    def plan(self, split: str, epoch: int, make: Callable[[], Any]) -> Any:
        """The plan of an epoch, made by make(); two of each split are kept."""
        with self._lock:
            plans = self._known.setdefault(("plans", split), {})
            if epoch not in plans:
                if len(plans) == 2:
                    del plans[max(plans, key=lambda known: abs(known - epoch))]
                plans[epoch] = make()
            return plans[epoch]


def gather(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Rows ids[start : start + length], filled up with PAD to shape (len(starts), width)."""
    columns = np.arange(width)
    inside = columns < lengths[:, None]
    return np.where(inside, ids[np.where(inside, starts[:, None] + columns, 0)], PAD).astype(
        np.int32
    )


def cut_pieces(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents cut into pieces of at most `width` tokens: of each piece its document, where
    in the document it begins, and its length. A document without a token has none."""
    counts = -(-lengths // width)
    documents = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(documents)) - np.repeat(counts.cumsum() - counts, counts)
    return documents, nth * width, np.minimum(lengths[documents] - nth * width, width)


def fill(rows: np.ndarray, count: int) -> np.ndarray:
    """Row numbers with -1 appended up to count: rows that hold nothing."""
    return np.concatenate([rows, np.full(count - len(rows), -1, rows.dtype)])


def check_ids(batch: Mapping[str, np.ndarray], vocab_size: int) -> None:
    """Refuses ids that the vocabulary lacks; a device would read another row instead.

    Raises:
        DataError: naming field, row and column of the first such id.
    """
    for field in ID_FIELDS:
        ids = batch.get(field)
        if ids is None or not ids.size or (ids.min() >= 0 and ids.max() < vocab_size):
            continue
        place = np.argwhere((ids < 0) | (ids >= vocab_size))[0]
        raise DataError(
            f"batch field {field!r}, row {place[0]}, column {place[-1]}: id {ids[tuple(place)]} "
            f"is outside the vocabulary of {vocab_size}."
        )
