"""Batches of text pairs by a budget of tokens, in a handful of shapes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.batching import Batches, Counts, fill, gather
from data.buckets import Shape, assign, choose_shapes, shape_of
from data.plans import Plan, plan_batches
from data.sources.base import Source
from data.tokenizers import BOS, EOS, PAD, Tokenizer
from errors import ConfigError, DataError


class _Split(NamedTuple):
    """The pairs of a split that stand in batches.

    Attributes:
        examples: row number in the split, (kept,).
        starts, lengths: where the ids of each side begin and how many are used, without
            BOS and EOS, (kept, 2).
        buckets: the number of each pair's shape, (kept,).
    """

    examples: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    buckets: np.ndarray


class PairBatches(Batches):
    """Source and target padded to one of a few shapes.

    A batch of B rows has the fields
        source (B, S): source ids, EOS, PAD;
        inputs (B, T): BOS, target ids, PAD;
        targets (B, T): target ids, EOS, PAD;
        weights (B, T): 1 where targets is a token to predict, 0 at PAD;
        index (B,): the row of the split, -1 for rows that hold nothing (all PAD, weight 0).

    Each pair stands in one batch of an epoch. Pairs of one shape are batched together; where
    they don't fill their batches, each batch gets a few empty rows, so that none is nearly
    empty. Training pairs that are longer than max_length are dropped, those of validation
    and test cut, and both are counted.

    Args:
        source, tokenizer, cache_dir: text, ids, and where the ids are kept.
        seed: another seed, another order of training.
        tokens_per_batch: target places (or source places, where the shape is wider there) of
            a batch at most, padding included. The number of rows follows from it: a multiple
            of 8, and 8 where the budget is too small for more.
        max_length: tokens of a side with BOS or EOS.
        num_buckets: shapes; validation and test may add one.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        tokens_per_batch: int = 2048,
        max_length: int = 128,
        num_buckets: int = 5,
    ) -> None:
        check_pair_options(tokens_per_batch, max_length, num_buckets)
        self.tokens_per_batch, self.max_length = tokens_per_batch, max_length
        self.num_buckets = num_buckets
        options = {
            "seed": seed,
            "tokens_per_batch": tokens_per_batch,
            "max_length": max_length,
            "num_buckets": num_buckets,
        }
        super().__init__(source, tokenizer, cache_dir, options)

    def counts(self, split: str) -> Counts:
        kept = self._split(split)
        num_long = int((self.tokens(split).lengths.max(1) >= self.max_length).sum())
        return Counts(
            examples=len(kept.examples),
            tokens=int((kept.lengths[:, 1] + 1).sum()),
            dropped=num_long if split == "train" else 0,
            truncated=0 if split == "train" else num_long,
        )

    def shapes(self, split: str) -> list[Shape]:
        """The shapes of a split's batches, narrow to wide."""
        shapes = self.once(("shapes",), self._training_shapes)
        if split == "train":
            return shapes
        return self.once(("shapes", split), lambda: self._add_longest(shapes, split))

    def num_batches(self, split: str) -> int:
        return self.once(("batches", split), lambda: self._count_batches(split))

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        kept = self._split(split)
        plan = self.plan(split, epoch, lambda: self._make_plan(split, epoch))
        shape = self.shapes(split)[plan.buckets[place]]
        rows = fill(plan.rows[slice(*plan.edges[place])], shape.num_rows)
        is_real = rows >= 0
        starts, lengths = kept.starts[rows], kept.lengths[rows] * is_real[:, None]
        ids = self.tokens(split).ids
        source = gather(ids, starts[:, 0], lengths[:, 0], shape.source_length)
        targets = gather(ids, starts[:, 1], lengths[:, 1], shape.target_length)
        inputs = np.full_like(targets, PAD)
        inputs[:, 1:] = targets[:, :-1]
        real = np.flatnonzero(is_real)
        inputs[real, 0] = BOS
        source[real, lengths[real, 0]] = EOS
        targets[real, lengths[real, 1]] = EOS
        predicted = np.arange(shape.target_length) <= lengths[:, 1, None]
        return {
            "source": source,
            "inputs": inputs,
            "targets": targets,
            "weights": (predicted & is_real[:, None]).astype(np.float32),
            "index": np.where(is_real, kept.examples[rows], -1).astype(np.int32),
        }

    def _count_batches(self, split: str) -> int:
        used = np.bincount(self._split(split).buckets)
        rows = [shape.num_rows for shape in self.shapes(split)[: len(used)]]
        return int((-(-used // rows)).sum())

    def _training_shapes(self) -> list[Shape]:
        lengths = self.tokens("train").lengths + 1  # BOS or EOS
        lengths = lengths[lengths.max(1) <= self.max_length]
        if not len(lengths):
            raise DataError(
                f"{self.source.name}: every training pair is longer than max_length, "
                f"{self.max_length} tokens."
            )
        return choose_shapes(lengths, self.num_buckets, self.tokens_per_batch, self.max_length)

    def _add_longest(self, shapes: list[Shape], split: str) -> list[Shape]:
        """The shapes of training, and one of max_length if a pair of the split needs it."""
        longest = np.minimum(self.tokens(split).lengths.max(0) + 1, self.max_length)
        if (longest <= shapes[-1][1:]).all():
            return shapes
        return [*shapes, shape_of(self.max_length, self.max_length, self.tokens_per_batch)]

    def _split(self, split: str) -> _Split:
        return self.once(("split", split), lambda: self._make_split(split))

    def _make_split(self, split: str) -> _Split:
        tokens = self.tokens(split)
        starts, lengths = tokens.offsets[:-1].reshape(-1, 2), tokens.lengths
        examples = np.arange(tokens.num_examples)
        if split == "train":
            examples = np.flatnonzero(lengths.max(1) < self.max_length)
        lengths = np.minimum(lengths[examples], self.max_length - 1)
        buckets = assign(lengths + 1, self.shapes(split))
        return _Split(examples, starts[examples], lengths, buckets)

    def _make_plan(self, split: str, epoch: int) -> Plan:
        kept = self._split(split)
        return plan_batches(
            self.order(split, epoch, len(kept.examples)),
            kept.buckets,
            [shape.num_rows for shape in self.shapes(split)],
            lambda count: self.order(split, epoch, count, "batches"),
        )


def check_pair_options(tokens_per_batch: int, max_length: int, num_buckets: int) -> None:
    """Refuses options out of range, before any data are read."""
    least = {"tokens_per_batch": 1, "max_length": 2, "num_buckets": 1}
    given = (tokens_per_batch, max_length, num_buckets)
    for (name, smallest), value in zip(least.items(), given, strict=True):
        if value < smallest:
            raise ConfigError(f"config.task.{name} must be at least {smallest}, got {value}.")
