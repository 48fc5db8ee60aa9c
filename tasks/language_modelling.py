"""Predicting each token from those before it."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

import data
from errors import ConfigError
from registry import NonNegativeInt, PositiveInt, Rate
from tasks.base import Evaluation, Sums
from tasks.losses import Output, batch_nll, output_of, output_sums
from tasks.samples import continued
from tasks.text import TextTask
from tasks.token_prediction import TokenPrediction


class LanguageModelling(TokenPrediction):
    """Maximises the probability of each token given those before it (Bengio et al. 2003).

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        side: "source" or "target" of the pairs, or "both": the target after the source,
            which is read but not predicted.
        sequence_length: tokens in a row.
        sequences_per_batch: rows in a batch.
        packed: rows hold several documents with segments; else one each, padded.
        label_smoothing: of the training loss only.
        truncate: 0, or truncated back-propagation through time (Williams & Peng 1990): the
            rows are pieces of streams, a row begins with the state in which the one before
            it ended, and the gradient goes back k2 = truncate tokens from the last one, with
            an update every k1 = sequence_length tokens. Where k2 > k1 the last k2 - k1
            tokens are read again, from an older state.
        num_samples: texts of the final split of which the trained model writes a continuation.
    """

    model_kind = "language_model"
    may_change: ClassVar[tuple[str, ...]] = (*TextTask.may_change, "num_samples")

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
        truncate: NonNegativeInt = 0,
        num_samples: NonNegativeInt = 0,
    ) -> None:
        if truncate and (truncate < sequence_length or not packed):
            raise ConfigError(
                f"config.task.truncate ({truncate}) must be 0 or at least config.task."
                f"sequence_length ({sequence_length}), and needs config.task.packed."
            )
        built = self.read_text(source, tokenizer, data_dir)
        self.label_smoothing = label_smoothing
        self.side, self.num_samples = side, num_samples
        self.truncate, self.rows = truncate, (sequences_per_batch, sequence_length)
        options: dict[str, Any] = {
            "seed": seed,
            "side": side,
            "sequence_length": sequence_length,
            "sequences_per_batch": sequences_per_batch,
            "packed": packed,
        }
        text = (built, self.tokenizer, data_dir)
        self.batches = (
            data.StreamBatches(*text, truncate=truncate, **options)
            if truncate
            else data.LanguageBatches(*text, **options)
        )

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums of "loss", "nll" and "accuracy" over predicted tokens."""
        if not self.truncate:
            return super().loss(model, variables, batch, key, train)
        smoothing = self.label_smoothing if train else 0.0
        x_BTD, output, carry = self._stream_features(model, variables, batch, key, train)
        predicted = {name: batch[name][:, -self.rows[1] :] for name in ("targets", "weights")}
        return output_sums(x_BTD, output, predicted, smoothing) | {"carry": carry}

    def inputs(self, batch: dict) -> tuple:
        return batch["inputs"], batch["segments"]

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        if not self.truncate:
            return super().token_losses(model, variables, batch)
        key = jax.random.key(0)  # nothing is random without training
        x_BTD, output, carry = self._stream_features(model, variables, batch, key, False)
        return batch_nll(x_BTD, output, batch), carry

    def init_carry(self, model: Any) -> Any:
        """Zero states of all streams, or None without truncation.

        Raises:
            ConfigError: the model's state grows with what it has read.
        """
        if not self.truncate:
            return None
        sizes = [jax.eval_shape(lambda n=n: model.init_carry(1, n)) for n in (1, 2)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"config.task.truncate ({self.truncate}) needs a model whose state does not "
                f"grow with what it has read, which that of {type(model).__name__} does. Choose a "
                "recurrent config.model.name, or 0."
            )
        return model.init_carry(self.rows[0], 1)

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        return continued(model, variables, self, split, self.num_samples, self.side, poll)

    def _stream_features(
        self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool
    ) -> tuple[jax.Array, Output, Any]:
        """What the output layer sees of a piece of each stream, that layer, and the states where
        the next pieces begin."""
        inputs_BT, segments_BT = batch["inputs"], batch["segments"]
        k1 = self.rows[1]
        carry = batch.get("carry") or model.init_carry(len(inputs_BT), 1)

        def read(module: Any) -> tuple[Any, jax.Array, Output]:
            after, x_BTD = module.features_from(
                carry, inputs_BT[:, :k1], segments_BT[:, :k1], train
            )
            if inputs_BT.shape[1] > k1:
                rest_BT, ended_B1 = segments_BT[:, k1:], segments_BT[:, k1 - 1 : k1]
                rest_BT = jnp.where(rest_BT > 0, rest_BT - ended_B1 + 1, 0)
                _, more_BTD = module.features_from(after, inputs_BT[:, k1:], rest_BT, train)
                x_BTD = jnp.concatenate([x_BTD, more_BTD], axis=1)[:, -k1:]
            return jax.lax.stop_gradient(after), x_BTD, output_of(module)

        rngs = {"dropout": key} if train else None
        after, x_BTD, output = model.apply(variables, method=read, rngs=rngs)
        return x_BTD, output, after
