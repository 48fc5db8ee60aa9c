"""Predicting each token from those before it, and from those behind it."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

import data
from registry import NonNegativeInt, PositiveInt
from tasks.base import Sums
from tasks.language_modelling import LanguageModelling
from tasks.losses import batch_nll, output_sums, token_features


class BidirectionalLanguageModelling(LanguageModelling):
    """Maximises the likelihood of both directions together (Peters et al. 2018, section 3.1).

      loss = mean over tokens of -log p(w_t | w_1 .. w_t-1) - log p(w_t | w_t+1 .. w_n)

    A document is <s> text </s>: forwards its text and </s> are predicted, backwards its text and
    <s>.

    Args:
        source, tokenizer, side, sequence_length, sequences_per_batch, packed: as of
            language_modelling.
        max_characters: 0, or the characters of a token, for a model that reads them.
    """

    model_kind = "bidirectional_lm"

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        side: Literal["source", "target"] = "target",
        sequence_length: PositiveInt = 128,
        sequences_per_batch: PositiveInt = 16,
        packed: bool = True,
        max_characters: NonNegativeInt = 0,
    ) -> None:
        rows = (sequence_length, sequences_per_batch, packed)
        super().__init__(seed, data_dir, source, tokenizer, side, *rows)
        self.spelled = data.spellings(self.tokenizer, max_characters) if max_characters else None

    def batch(self, split: str, step: int) -> dict:
        batch = super().batch(split, step)
        if self.spelled is not None:
            batch |= {
                f"{name}_spelled": self.spelled[batch[name]] for name in ("inputs", "targets")
            }
        return batch

    def inputs(self, batch: dict) -> tuple:
        names = ("inputs", "targets")
        both = (batch.get(f"{name}_spelled", batch[name]) for name in names)
        return (*both, batch["segments"])

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums over tokens of "loss", of both directions' "nll" and "accuracy", and of
        "forward_nll" and "backward_nll"."""
        x_BTE, output, _ = token_features(model, variables, self.inputs(batch), key, train)
        halves = zip(jnp.split(x_BTE, 2, axis=1), self._directions(batch), strict=True)
        forward, backward = (output_sums(x, output, part, 0.0) for x, part in halves)
        both = {
            name: (forward[name][0] + backward[name][0], 2 * forward[name][1])
            for name in ("nll", "accuracy")
        }
        loss = forward["loss"][0] + backward["loss"][0]
        each = {"forward_nll": forward["nll"], "backward_nll": backward["nll"]}
        return {"loss": (loss, forward["loss"][1]), **both, **each}

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        """Those of both directions side by side, (B, 2 T)."""
        key = jax.random.key(0)  # nothing is random without training
        x_BTE, output, _ = token_features(model, variables, self.inputs(batch), key, train=False)
        parts = self._directions(batch)
        both = {name: jnp.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        return batch_nll(x_BTE, output, both), None

    def _directions(self, batch: dict) -> list[dict]:
        """What each half of the features predicts."""
        return [
            {"targets": batch[name], "weights": batch["weights"]} for name in ("targets", "inputs")
        ]
