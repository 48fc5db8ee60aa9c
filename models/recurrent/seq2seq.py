"""The recurrent encoder-decoder of the table."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import DTYPES, Dense, logits
from models.recurrent.base import Recurrent
from models.recurrent.decoder import AttentionDecoder
from models.recurrent.layer import BidirectionalLayer
from registry import PositiveInt

Array = jax.Array


class RecurrentSeq2Seq(Recurrent):
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

    def init_carry(self, encoded: dict, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """The first states, and what attention reads of the source; the rest does not matter."""
        return {"state": {"layers": self._start(encoded)}, "memory": self._memory(encoded)}

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        carries, memory = list(carry["state"]["layers"]), carry["memory"]
        x_RE = self.embed(token_R)
        h_RH, parts, new = x_RE, [x_RE], []
        if self.attention != "none":
            state, h_RH, context_RD = self.attention_decoder.step(carries.pop(0), h_RH, memory)
            parts.append(context_RD)
            new.append(state)
        if carries:
            states, h_RH = self.decoder.step(carries, h_RH)
            new.extend(states)
        carry = {"state": {"layers": new}, "memory": memory}
        return carry, logits(self._read([h_RH, *parts]), self.output_layer())
