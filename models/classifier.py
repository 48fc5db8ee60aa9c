"""A model of any kind that reads text, with a small head that says what the text is."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import ConfigError
from models.layers import Dense, Dropout
from models.recurrent.elmo import ScalarMix
from models.recurrent.layer import BidirectionalLayer
from registry import PositiveInt, Rate

Array = jax.Array

INNER_KINDS = ("encoder", "language_model", "bidirectional_lm")


class Classifier(nn.Module):
    """Scores of a text, or of each of its tokens, by a linear layer on what `inner` made of it.

    The linear layer sees, by kind of `inner`:
      encoder            its pooled first place, [CLS] (Devlin et al. 2019)
      language_model     its last token, which has read all (Radford et al. 2018)
      bidirectional_lm   both ends of the mixture of its layers (Peters et al. 2018)
    With head="lstm" it sees the last states of an LSTM that reads all features in both
    directions, as ELMo's were used. With per_token it sees the features of each token.

    Attributes:
        inner: the model; in a config its block. Its parameters are "inner/...".
        num_outputs: scores of a text; 1 where a text has one number or is one of some options.
        hidden_size: of the LSTM, for each direction.
        dropout_rate: of what the linear layer sees, and of what the LSTM reads.
    """

    kind = "classifier"
    blocks = ("inner",)

    vocab_size: PositiveInt
    inner: Any
    num_outputs: PositiveInt = 2
    per_token: bool = False
    head: Literal["linear", "lstm"] = "linear"
    hidden_size: PositiveInt = 128
    dropout_rate: Rate = 0.1

    def setup(self) -> None:
        if self.inner.kind not in INNER_KINDS:
            raise ConfigError(
                f"config.model.inner must be a {' or a '.join(INNER_KINDS)}, got a "
                f"{self.inner.kind}. Choose another config.model.inner.name."
            )
        if self.inner.kind == "bidirectional_lm":
            self.mix = ScalarMix(self.inner.num_layers + 1)
        if self.head == "lstm":
            self.reader = BidirectionalLayer(self.hidden_size)
        self.dropout = Dropout(self.dropout_rate)
        self.scores = Dense((self.num_outputs,), ("embed", "hidden"))

    def __call__(
        self,
        tokens_BOT: Array,
        segments_BOT: Array | None = None,
        types_BOT: Array | None = None,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Reads O texts of each row: the options of a choice, the orders of a pair, or one.

        Args:
            tokens_BOT: ids, or (B, O, T, W) characters.
            segments_BOT: 1 at tokens, 0 at the padding behind them; None: no padding.
            types_BOT: 0 in the first text and 1 in the second, which an encoder sees.

        Returns:
            (scores (B, O, num_outputs), with per_token (B, O, T, num_outputs); the features of
            `inner` (B, O, T, its width), before any head).
        """
        rows = tokens_BOT.shape[:2]
        if segments_BOT is None:
            segments_BOT = jnp.ones(tokens_BOT.shape[:3], jnp.int32)
        tokens_RT, segments_RT = (x.reshape(-1, *x.shape[2:]) for x in (tokens_BOT, segments_BOT))
        types_RT = None if types_BOT is None else types_BOT.reshape(segments_RT.shape)
        x_RTD = self._features(tokens_RT, segments_RT, types_RT, train)
        seen = self._seen(x_RTD, segments_RT, train)
        scores = self.scores(self.dropout(seen, train)).astype(jnp.float32)
        return scores.reshape(*rows, *scores.shape[1:]), x_RTD.reshape(*rows, *x_RTD.shape[1:])

    def output_layer(self) -> Array:
        """The output layer of `inner`, for a loss on its predictions beside the head's."""
        return self.inner.output_layer()

    def output_bias(self) -> Array | None:
        """What `inner` adds to its logits."""
        return self.inner.output_bias()

    def _features(
        self, tokens_RT: Array, segments_RT: Array, types_RT: Array | None, train: bool
    ) -> Array:
        if self.inner.kind == "encoder":
            return self.inner.features(tokens_RT, segments_RT, types_RT, train)
        if self.is_initializing():
            self.inner.output_layer()  # a language model keeps it, whoever asks for it
        if self.inner.kind == "bidirectional_lm":
            return self.mix(self.inner.layers(tokens_RT, segments_RT, train))
        return self.inner.features(tokens_RT, segments_RT, train)

    def _seen(self, x_RTD: Array, segments_RT: Array, train: bool) -> Array:
        """What the linear layer sees: (R, width), with per_token (R, T, width)."""
        is_token_RT = segments_RT != 0
        if self.head == "lstm":
            x_TRD = self.dropout(x_RTD, train).transpose(1, 0, 2)
            ends, y_TRH = self.reader(x_TRD, is_token_RT.T, train)
            if self.per_token:
                return y_TRH.transpose(1, 0, 2)
            return jnp.concatenate([carry[-1] for carry in ends], axis=-1)
        if self.per_token:
            return x_RTD
        if self.inner.kind == "encoder":
            return self.inner.pooled(x_RTD)
        last_R = jnp.maximum(is_token_RT.sum(-1) - 1, 0)
        last_RD = jnp.take_along_axis(x_RTD, last_R[:, None, None], axis=1)[:, 0]
        if self.inner.kind == "bidirectional_lm":
            half = x_RTD.shape[-1] // 2
            return jnp.concatenate([last_RD[:, :half], x_RTD[:, 0, half:]], axis=-1)
        return last_RD
