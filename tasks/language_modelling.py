"""Predicting each token from those before it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax

import data
from registry import PositiveInt, Rate
from tasks.base import Sums, Task
from tasks.losses import token_sums


class LanguageModelling(Task):
    """Maximises the probability of each token given those before it (Bengio et al. 2003).

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        side: "source" or "target" of the pairs, or "both": the target after the source,
            which is read but not predicted.
        sequence_length: tokens in a row.
        sequences_per_batch: rows in a batch.
        packed: rows hold several documents with segments; else one each, padded.
        label_smoothing: of the training loss only.
    """

    model_kind = "language_model"
    blocks: ClassVar = {"source": data.SOURCES, "tokenizer": data.TOKENIZERS}
    may_change = ("source.path", "source.data_dir")

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        side: Literal["source", "target", "both"] = "target",
        sequence_length: PositiveInt = 128,
        sequences_per_batch: PositiveInt = 16,
        packed: bool = True,
        label_smoothing: Rate = 0.0,
    ) -> None:
        built = data.build_source(source, data_dir)
        self.tokenizer = data.build_tokenizer(tokenizer, built, data_dir)
        self.vocab_size = self.tokenizer.vocab_size
        self.label_smoothing = label_smoothing
        self.batches = data.LanguageBatches(
            built,
            self.tokenizer,
            data_dir,
            seed=seed,
            side=side,
            sequence_length=sequence_length,
            sequences_per_batch=sequences_per_batch,
            packed=packed,
        )
        self.batch = self.batches.batch
        self.num_batches = self.batches.num_batches

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums of "loss", "nll" and "accuracy" over predicted tokens."""
        return token_sums(
            model,
            variables,
            (batch["inputs"], batch["segments"]),
            batch,
            key,
            train,
            self.label_smoothing if train else 0.0,
        )

    def fingerprint(self) -> dict[str, str]:
        return {"data": self.batches.fingerprint(), "tokenizer": self.tokenizer.fingerprint()}

    def save(self, folder: Any) -> None:
        self.tokenizer.save(folder / "tokenizer")
