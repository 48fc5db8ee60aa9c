"""What tasks share whose loss is that of the tokens which a model predicts."""

from typing import Any

import jax

from tasks.base import Sums
from tasks.losses import batch_nll, token_features, token_sums
from tasks.text import TextTask


class TokenPrediction(TextTask):
    """Maximises the probability of each target token, of weight 1, given what `inputs` are.

    The batches have "targets" and "weights", (B, T).

    Attributes:
        label_smoothing: of the training loss only (Szegedy et al. 2016).
    """

    label_smoothing: float = 0.0

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums of "loss", "nll" and "accuracy" over predicted tokens."""
        smoothing = self.label_smoothing if train else 0.0
        return token_sums(model, variables, self.inputs(batch), batch, key, train, smoothing)

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        key = jax.random.key(0)  # nothing is random without training
        x_BTD, output, _ = token_features(model, variables, self.inputs(batch), key, train=False)
        return batch_nll(x_BTD, output, batch), None
