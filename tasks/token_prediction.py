"""What tasks share whose loss is that of the tokens which a model predicts."""

from typing import Any

import jax

import data
from tasks.base import Sums, Task
from tasks.losses import batch_nll, token_features, token_sums


class TokenPrediction(Task):
    """Maximises the probability of each target token, of weight 1, given what `inputs` are.

    Attributes:
        batches: of data/, with "targets" and "weights", (B, T).
        label_smoothing: of the training loss only (Szegedy et al. 2016).
    """

    batches: data.Batches
    label_smoothing: float = 0.0

    def batch(self, split: str, step: int) -> dict:
        return self.batches.batch(split, step)

    def num_batches(self, split: str) -> int:
        return self.batches.num_batches(split)

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums of "loss", "nll" and "accuracy" over predicted tokens."""
        smoothing = self.label_smoothing if train else 0.0
        return token_sums(model, variables, self.inputs(batch), batch, key, train, smoothing)

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        key = jax.random.key(0)  # nothing is random without training
        x_BTD, output, _ = token_features(model, variables, self.inputs(batch), key, train=False)
        return batch_nll(x_BTD, output, batch), None

    def fingerprint(self) -> dict[str, str]:
        return {"data": self.batches.fingerprint(), "tokenizer": self.tokenizer.fingerprint()}

    def save(self, folder: Any) -> None:
        self.tokenizer.save(folder / "tokenizer")
