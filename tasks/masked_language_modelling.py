"""Filling in words that are hidden, and telling whether two texts follow one another."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

import data
from errors import ConfigError
from registry import PositiveInt, Rate
from tasks.base import Sums
from tasks.losses import Output, batch_nll, output_of, output_sums
from tasks.token_prediction import TokenPrediction

LEAST_LENGTH = 8  # [CLS] a [SEP] b [SEP] with a few tokens in a and b


class MaskedLanguageModelling(TokenPrediction):
    """BERT's two objectives (Devlin et al. 2019, 3.1).

    Words of both texts of a pair are hidden and found out; and whether the second text follows
    the first is told by what the model makes of [CLS]. What is hidden differs from epoch to
    epoch in training, and is always the same in validation and test (for every seed).

    The loss is nll + P * pair_loss, summed over the batch and divided by its hidden tokens,
    where P is how many a full row has: full rows give the sum of both means, as in the paper,
    and in all rows each pair weighs as much as P tokens.

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        side: "source" or "target" of the pairs; neighbouring examples of a source are taken
            for neighbouring texts.
        sequence_length: tokens in a row.
        sequences_per_batch: rows in a batch.
        nsp: pairs of texts and whether they are neighbours; else one text a row (Liu et al.
            2019).
        mask_rate: share of the tokens that is to be found out.
        whole_words: hides all tokens of a word or none.
    """

    model_kind = "encoder"

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        side: Literal["source", "target"] = "target",
        sequence_length: PositiveInt = 128,
        sequences_per_batch: PositiveInt = 16,
        nsp: bool = True,
        mask_rate: Rate = 0.15,
        whole_words: bool = False,
    ) -> None:
        if sequence_length < LEAST_LENGTH:
            raise ConfigError(
                f"config.task.sequence_length must be at least {LEAST_LENGTH}, got "
                f"{sequence_length}."
            )
        reserved = (data.MASK, data.CLS, data.SEP)
        built, self.nsp = self.read_text(source, tokenizer, data_dir, reserved), nsp
        self.batches = data.MaskedBatches(
            built,
            self.tokenizer,
            data_dir,
            seed=seed,
            side=side,
            sequence_length=sequence_length,
            sequences_per_batch=sequences_per_batch,
            pairs=nsp,
            rate=mask_rate,
            whole_words=whole_words,
        )

    def inputs(self, batch: dict) -> tuple:
        return masked_inputs(batch)

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums of "loss", and of "nll" and "accuracy" over hidden tokens; with `nsp` also of
        "pair_loss" and "pair_accuracy" over pairs."""
        return masked_sums(model, variables, batch, key, train, self.nsp)

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        key = jax.random.key(0)  # nothing is random without training
        x_BPD, output, _ = _outputs(model, variables, batch, key, train=False, nsp=self.nsp)
        return batch_nll(x_BPD, output, batch), None


def masked_inputs(batch: dict) -> tuple:
    """What the model reads of a batch of data.MaskedBatches; one without segments is full."""
    return batch["inputs"], batch.get("segments"), batch["types"]


def masked_sums(
    model: Any, variables: Any, batch: dict, key: jax.Array, train: bool, nsp: bool
) -> Sums:
    """The sums of MaskedLanguageModelling.loss over a batch of data.MaskedBatches."""
    x_BPD, output, pair_B2 = _outputs(model, variables, batch, key, train, nsp)
    sums = output_sums(x_BPD, output, batch, label_smoothing=0.0)
    if not nsp:
        return sums
    is_next_B, weights_B = batch["is_next"], batch["pairs"]
    log_p_B2 = jax.nn.log_softmax(pair_B2.astype(jnp.float32))
    nll_B = -jnp.take_along_axis(log_p_B2, is_next_B[:, None], axis=1)[:, 0]
    hits_B = pair_B2.argmax(axis=1) == is_next_B
    pair_nll, num_pairs = jnp.where(weights_B > 0, nll_B, 0).sum(), weights_B.sum()
    loss, num_tokens = sums["loss"]
    return sums | {
        "loss": (loss + batch["places"].shape[1] * pair_nll, num_tokens),
        "pair_loss": (pair_nll, num_pairs),
        "pair_accuracy": ((hits_B * weights_B).sum(), num_pairs),
    }


def _outputs(
    model: Any, variables: Any, batch: dict, key: jax.Array, train: bool, nsp: bool
) -> tuple[jax.Array, Output, jax.Array]:
    """What the output layer sees of the hidden places alone, that layer, and the logits of
    the pairs."""
    if nsp and model.num_types < 2:
        raise ConfigError(
            f"config.task.nsp needs two types of tokens, config.model.num_types is "
            f"{model.num_types}. Choose another preset, or nsp=false."
        )

    def read(module: Any) -> tuple[jax.Array, Output, jax.Array]:
        x_BTD = module.features(*masked_inputs(batch), train=train)
        x_BPD = jnp.take_along_axis(x_BTD, batch["places"][:, :, None], axis=1)
        pair_B2 = module.pair_logits(module.pooled(x_BTD))
        return module.token_features(x_BPD), output_of(module), pair_B2

    return model.apply(variables, method=read, rngs={"dropout": key} if train else None)
