"""What the models of a kind share: how features become logits."""

from typing import Any

import flax.linen as nn
import jax

from models.layers import logits

Array = jax.Array


class TiedOutput(nn.Module):
    """Logits from `embed`, or from a matrix `output` of their own without tie_embeddings."""

    def output_layer(self) -> Array:
        """The matrix kernel_VD that turns features into logits."""
        return self.embed.embedding if self.tie_embeddings else self.output()

    def output_bias(self) -> Array | None:
        """What is added to the logits, bias_V, or None."""
        return None

    def _logits(self, x: Array) -> Array:
        return logits(x, self.output_layer(), self.output_bias())


class LanguageModel(TiedOutput):
    """A model that has `features`, and `init_carry` and `step`."""

    kind = "language_model"

    @nn.nowrap
    def longest_row(self) -> int | None:
        """How many tokens the model can tell apart by position; None where that has no end."""
        return None

    def __call__(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """Logits of the next token at each place, (B, T, vocab_size)."""
        return self._logits(self.features(tokens_BT, segments_BT, train))


class EncoderDecoder(TiedOutput):
    """A model that has `encode` and `_decode_features`, and `init_carry` and `step`."""

    kind = "seq2seq"

    def decode(self, encoded: dict[str, Any], inputs_BT: Array, train: bool = False) -> Array:
        """Logits of the next target token at each place, (B, T, vocab_size)."""
        return self._logits(self._decode_features(encoded, inputs_BT, train))

    def features(self, source_BS: Array, inputs_BT: Array, train: bool = False) -> Array:
        """What the output layer sees at each target place, (B, T, its width)."""
        return self._decode_features(self.encode(source_BS, train), inputs_BT, train)

    def __call__(self, source_BS: Array, inputs_BT: Array, train: bool = False) -> Array:
        """encode, then decode."""
        return self.decode(self.encode(source_BS, train), inputs_BT, train)
