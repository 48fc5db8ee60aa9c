"""The recurrent models of the table: a language model and an encoder-decoder."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import masks
from models.layers import DTYPES, Dense, Dropout, Embed, OutputLayer, logits
from models.recurrent.cells import LSTMCell
from models.recurrent.decoder import AttentionDecoder
from models.recurrent.layer import BidirectionalLayer, RecurrentStack
from registry import PositiveInt, Rate

Array = jax.Array


class _Recurrent(nn.Module):
    """Options, embeddings and output layer that both models share."""

    vocab_size: PositiveInt
    embedding_size: PositiveInt = 256
    hidden_size: PositiveInt = 256
    dropout_rate: Rate = 0.2
    tie_embeddings: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False

    def _setup_embeddings(self) -> None:
        dtype = DTYPES[self.dtype]
        self.embed = Embed(self.vocab_size, self.embedding_size, dtype=dtype)
        self.dropout = Dropout(self.dropout_rate)
        self.readout = Dense((self.embedding_size,), ("hidden", "embed"), dtype=dtype)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, self.embedding_size)

    def _stack(self, num_layers: int) -> RecurrentStack:
        stack = nn.remat(RecurrentStack, static_argnums=(2,)) if self.remat else RecurrentStack
        return stack(
            self.hidden_size, num_layers, dropout_rate=self.dropout_rate, dtype=DTYPES[self.dtype]
        )

    def _embed(self, tokens_BT: Array, train: bool) -> Array:
        """Embedded tokens with time first, (T, B, embedding_size)."""
        return self.dropout(self.embed(tokens_BT.T), train)

    def _read(self, parts: list[Array], train: bool = False) -> Array:
        """One tanh layer between the states and the output layer."""
        return jnp.tanh(self.readout(self.dropout(jnp.concatenate(parts, axis=-1), train)))

    def output_layer(self) -> Array:
        """The matrix kernel_VD that turns features into logits."""
        return self.embed.embedding if self.tie_embeddings else self.output()


class RecurrentLM(_Recurrent):
    """Recurrent language model (Mikolov et al. 2010; with LSTM, Zaremba et al. 2014)."""

    kind = "language_model"
    num_layers: PositiveInt = 2

    def setup(self) -> None:
        self._setup_embeddings()
        self.stack = self._stack(self.num_layers)

    def features(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """What the output layer sees, (B, T, embedding_size); the state is cleared
        where a packed row begins a new segment."""
        x_TBE, resets_TB = self._embed(tokens_BT, train), None
        if segments_BT is not None:
            x_TBE = jnp.where((segments_BT.T != 0)[:, :, None], x_TBE, 0)
            resets_TB = masks.starts(segments_BT).T
        _, h_TBH = self.stack(x_TBE, train, resets_TB)
        return self._read([h_TBH], train).transpose(1, 0, 2)

    def __call__(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """Logits of the next token at each place, (B, T, vocab_size)."""
        return logits(self.features(tokens_BT, segments_BT, train), self.output_layer())

    @nn.nowrap
    def init_carry(self, batch_size: int, max_len: int) -> dict[str, Any]:
        """Zero states; max_len does not matter to a recurrence."""
        carry = LSTMCell.init_carry(batch_size, self.hidden_size, DTYPES[self.dtype])
        return {"state": {"layers": [carry] * self.num_layers}, "memory": {}}

    def step(self, carry: dict[str, Any], token_B: Array) -> tuple[dict[str, Any], Array]:
        """Reads one token a row; returns the new carry and logits_BV."""
        layers, h_BH = self.stack.step(carry["state"]["layers"], self.embed(token_B))
        carry = {"state": {"layers": layers}, "memory": {}}
        return carry, logits(self._read([h_BH]), self.output_layer())


class RecurrentSeq2Seq(_Recurrent):
    """Bidirectional encoder and recurrent decoder with one vocabulary for both sides.

    attention="none": the decoder starts from the encoder's last state and sees nothing
    else of the source (Sutskever et al. 2014; Cho et al. 2014).
    attention="additive": it looks back before each step (Bahdanau et al. 2015).
    """

    kind = "seq2seq"
    num_encoder_layers: PositiveInt = 1
    num_decoder_layers: PositiveInt = 1
    attention: Literal["none", "additive"] = "additive"

    def setup(self) -> None:
        self._setup_embeddings()
        dtype, hidden = DTYPES[self.dtype], self.hidden_size
        layer = nn.remat(BidirectionalLayer) if self.remat else BidirectionalLayer
        self.encoder = [layer(hidden, dtype=dtype) for _ in range(self.num_encoder_layers)]
        self.bridge = Dense((self.num_decoder_layers * hidden,), ("hidden", "embed"), dtype=dtype)
        attends = self.attention != "none"
        if attends:
            first = nn.remat(AttentionDecoder) if self.remat else AttentionDecoder
            self.attention_decoder = first(hidden, 2 * hidden, dtype=dtype)
        if self.num_decoder_layers > attends:
            self.decoder = self._stack(self.num_decoder_layers - attends)

    def encode(self, source_BS: Array, train: bool = False) -> dict[str, Array]:
        """Reads the source (0 is padding).

        Returns {"x": states (B, S, 2 * hidden_size), "segments": 1 at tokens (B, S),
        "last": the last states of both directions (B, 2 * hidden_size)}.
        """
        valid_SB = (source_BS != 0).T
        x_SBD = jnp.where(valid_SB[:, :, None], self._embed(source_BS, train), 0)
        for i, layer in enumerate(self.encoder):
            x_SBD = self.dropout(x_SBD, train) if i else x_SBD
            ends, x_SBD = layer(x_SBD, valid_SB)
        x_SBD = jnp.where(valid_SB[:, :, None], x_SBD, 0)
        last_BD = jnp.concatenate([end[-1] for end in ends], axis=-1)
        segments_BS = valid_SB.T.astype(jnp.int32)
        return {"x": x_SBD.transpose(1, 0, 2), "segments": segments_BS, "last": last_BD}

    def _start(self, encoded: dict) -> list:
        """The decoder's states before the first token: h = tanh(W last), c = 0."""
        h_BX = jnp.tanh(self.bridge(encoded["last"]))
        states = jnp.split(h_BX, self.num_decoder_layers, axis=-1)
        return [(jnp.zeros_like(h), h) for h in states]

    def _memory(self, encoded: dict) -> dict[str, Array]:
        if self.attention == "none":
            return {}
        return self.attention_decoder.memory(encoded["x"], encoded["segments"])

    def _decode_features(self, encoded: dict, inputs_BT: Array, train: bool) -> Array:
        x_TBE = self._embed(inputs_BT, train)
        carries, h_TBH, parts = self._start(encoded), x_TBE, [x_TBE]
        if self.attention != "none":
            _, h_TBH, context_TBD = self.attention_decoder(
                h_TBH, self._memory(encoded), carries.pop(0)
            )
            parts.append(context_TBD)
        if carries:
            _, h_TBH = self.decoder(h_TBH, train, None, carries)
        return self._read([h_TBH, *parts], train).transpose(1, 0, 2)

    def decode(self, encoded: dict, inputs_BT: Array, train: bool = False) -> Array:
        """Logits of the next target token at each place, (B, T, vocab_size)."""
        return logits(self._decode_features(encoded, inputs_BT, train), self.output_layer())

    def features(self, source_BS: Array, inputs_BT: Array, train: bool = False) -> Array:
        """What the output layer sees at each target place, (B, T, embedding_size)."""
        return self._decode_features(self.encode(source_BS, train), inputs_BT, train)

    def __call__(self, source_BS: Array, inputs_BT: Array, train: bool = False) -> Array:
        """encode, then decode."""
        return self.decode(self.encode(source_BS, train), inputs_BT, train)

    def init_carry(self, encoded: dict, max_len: int) -> dict[str, Any]:
        """The first states, and what attention reads of the source; max_len is free."""
        return {"state": {"layers": self._start(encoded)}, "memory": self._memory(encoded)}

    def step(self, carry: dict[str, Any], token_B: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a row; returns the new carry and logits_BV."""
        carries, memory = list(carry["state"]["layers"]), carry["memory"]
        x_BE = self.embed(token_B)
        h_BH, parts, new = x_BE, [x_BE], []
        if self.attention != "none":
            state, h_BH, context_BD = self.attention_decoder.step(carries.pop(0), h_BH, memory)
            parts.append(context_BD)
            new.append(state)
        if carries:
            states, h_BH = self.decoder.step(carries, h_BH)
            new.extend(states)
        carry = {"state": {"layers": new}, "memory": memory}
        return carry, logits(self._read([h_BH, *parts]), self.output_layer())
