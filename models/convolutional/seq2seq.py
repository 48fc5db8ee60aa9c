"""The convolutional encoder-decoder of the table."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import BareAttention
from models.base import EncoderDecoder
from models.convolutional.layers import HALF, NormedDense, centred_windows, gated, windows
from models.layers import DTYPES, Dropout, Embed, OutputLayer, logits
from registry import PositiveInt, Rate

Array = jax.Array
Arrays = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """What a model hands down to its layers."""

    embedding_size: int
    hidden_size: int
    kernel_size: int
    dropout_rate: float
    weight_norm: bool
    dtype: Any

    def dense(self, features: int, gain: float = 1.0) -> NormedDense:
        """A product behind dropout, or before a gate with a gain of 4."""
        kept = gain * (1 - self.dropout_rate)
        return NormedDense(features, kept, self.weight_norm, dtype=self.dtype)


class EncoderLayer(nn.Module):
    """x' = (x + glu(conv(dropout(x)))) sqrt(0.5)."""

    options: LayerOptions

    @nn.compact
    def __call__(self, x_BSF: Array, valid_BS: Array, train: bool) -> Array:
        options = self.options
        near_BSX = centred_windows(
            Dropout(options.dropout_rate)(x_BSF, train), options.kernel_size, valid_BS
        )
        return (x_BSF + gated(options.dense(2 * options.hidden_size, 4.0)(near_BSX))) * HALF


class DecoderLayer(nn.Module):
    """A causal convolution that looks at the source (Gehring et al. 2017, eq. 1 and 2).

      h = glu(conv(dropout(x)))          q = (W h + b + g) sqrt(0.5)
      c = sqrt(m) sum_j softmax(q z)_j v_j
      x' = ((h + W c + b) sqrt(0.5) + x) sqrt(0.5)

    g is the embedded target, z and v are the encoder's output without and with its input,
    and m is the number of source words: a mean of m has 1/m of the variance.
    """

    options: LayerOptions

    def setup(self) -> None:
        options = self.options
        self.convolution = options.dense(2 * options.hidden_size, 4.0)
        self.query = options.dense(options.embedding_size)
        self.out = options.dense(options.hidden_size)
        self.attention = BareAttention()
        self.dropout = Dropout(options.dropout_rate)

    def __call__(
        self, x_RTF: Array, past_RWF: Array, target_RTE: Array, memory: Arrays, train: bool
    ) -> tuple[Array, Array]:
        """R is B, or B times the hypotheses of a row, which stand side by side.

        Returns:
            (outputs, the kernel_size - 1 inputs that come before whatever follows).
        """
        width = self.options.kernel_size
        padded_RLF = jnp.concatenate([past_RWF, self.dropout(x_RTF, train)], axis=1)
        h_RTF = gated(self.convolution(windows(padded_RLF, width)))
        query_RTE = (self.query(h_RTF) + target_RTE) * HALF
        keys_BSE, values_BSE, segments_BS = (memory[n] for n in ("keys", "values", "segments"))
        num_words_B = (segments_BS != 0).sum(1).astype(values_BSE.dtype)
        values_BSE = values_BSE * jnp.sqrt(num_words_B)[:, None, None]
        context_RTE = self.attention(query_RTE, keys_BSE, values_BSE, segments_BS)
        h_RTF = (h_RTF + self.out(context_RTE)) * HALF
        return (h_RTF + x_RTF) * HALF, padded_RLF[:, padded_RLF.shape[1] - (width - 1) :]


class ConvolutionalSeq2Seq(EncoderDecoder):
    """ConvS2S (Gehring et al. 2017) with one vocabulary for both sides.

    The gradient of the encoder is not divided by the number of decoder layers, as there:
    optimizers of today scale it themselves.

    Attributes:
        embedding_size, hidden_size: width outside and inside the stacks.
        kernel_size: neighbours that one convolution sees.
        weight_norm: products have normalised weights.
        max_positions: places with a vector of their own; those beyond share the last.
    """

    vocab_size: PositiveInt
    embedding_size: PositiveInt = 256
    hidden_size: PositiveInt = 256
    num_encoder_layers: PositiveInt = 4
    num_decoder_layers: PositiveInt = 3
    kernel_size: PositiveInt = 3
    dropout_rate: Rate = 0.1
    weight_norm: bool = True
    max_positions: PositiveInt = 256
    tie_embeddings: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"

    def setup(self) -> None:
        dtype, size = DTYPES[self.dtype], self.embedding_size
        options = LayerOptions(
            size, self.hidden_size, self.kernel_size, self.dropout_rate, self.weight_norm, dtype
        )
        self.embed = Embed(self.vocab_size, size, dtype=dtype)
        self.source_positions = Embed(self.max_positions, size, dtype=dtype)
        self.target_positions = Embed(self.max_positions, size, dtype=dtype)
        self.encoder_in, self.encoder_out = options.dense(self.hidden_size), options.dense(size)
        self.decoder_in, self.decoder_out = options.dense(self.hidden_size), options.dense(size)
        self.encoder = [EncoderLayer(options) for _ in range(self.num_encoder_layers)]
        self.decoder = [DecoderLayer(options) for _ in range(self.num_decoder_layers)]
        self.dropout = Dropout(self.dropout_rate)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, size)

    def encode(self, source_BS: Array, train: bool = False) -> Arrays:
        """Reads the source (0 is padding).

        Returns {"keys": z, "values": (z + embedded source) sqrt(0.5), both (B, S,
        embedding_size), "segments": 1 at tokens (B, S)}.
        """
        valid_BS = source_BS != 0
        place_S = jnp.arange(source_BS.shape[1])
        x_BSE = (self.embed(source_BS) + self.source_positions(place_S)) * HALF
        # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
        x_BSE = self.dropout(jnp.where(valid_BS[:, :, None], x_BSE, 0), train)
        x_BSF = self.encoder_in(x_BSE)
        for layer in self.encoder:
            x_BSF = layer(x_BSF, valid_BS, train)
        z_BSE = self.encoder_out(self.dropout(x_BSF, train))
        segments_BS = valid_BS.astype(jnp.int32)
        return {"keys": z_BSE, "values": (z_BSE + x_BSE) * HALF, "segments": segments_BS}

    def _run(
        self, tokens_RT: Array, place: Array, pasts: list[Array], memory: Arrays, train: bool
    ) -> tuple[list[Array], Array]:
        """All decoder layers over T tokens at given places: (what they have seen, features)."""
        target_RTE = (self.embed(tokens_RT) + self.target_positions(place)) * HALF
        target_RTE = self.dropout(target_RTE, train)
        x_RTF, new = self.decoder_in(target_RTE), []
        for layer, past_RWF in zip(self.decoder, pasts, strict=True):
            x_RTF, past_RWF = layer(x_RTF, past_RWF, target_RTE, memory, train)
            new.append(past_RWF)
        return new, self.decoder_out(self.dropout(x_RTF, train))

    @nn.nowrap
    def _no_past(self, batch_size: int) -> list[Array]:
        shape = (batch_size, self.kernel_size - 1, self.hidden_size)
        return [jnp.zeros(shape, DTYPES[self.dtype])] * self.num_decoder_layers

    def _decode_features(self, encoded: Arrays, inputs_BT: Array, train: bool) -> Array:
        place_T = jnp.arange(inputs_BT.shape[1])
        pasts = self._no_past(inputs_BT.shape[0])
        return self._run(inputs_BT, place_T, pasts, encoded, train)[1]

    @nn.nowrap
    def init_carry(self, encoded: Arrays, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """No inputs before the first; neither max_len nor num_beams matters."""
        batch_size = encoded["keys"].shape[0]
        state = {
            "position": jnp.zeros(batch_size, jnp.int32),
            "pasts": self._no_past(batch_size),
        }
        return {"state": state, "memory": encoded}

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        state, memory = carry["state"], carry["memory"]
        place_R1 = state["position"][:, None]
        pasts, x_RTE = self._run(token_R[:, None], place_R1, state["pasts"], memory, False)
        state = {"position": state["position"] + 1, "pasts": pasts}
        scores_RV = logits(x_RTE[:, 0], self.output_layer())
        return {"state": state, "memory": memory}, scores_RV
