"""The two Transformers of the table: a language model and an encoder-decoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.base import EncoderDecoder, LanguageModel
from models.masks import (
    cross_mask,
    positions,
    positions_in_segment,
    prompt_mask,
    self_mask,
    split_prefix,
    whole_mask,
)
from models.transformer.base import Transformer
from models.transformer.block import Context, Slots
from registry import PositiveInt

Array = jax.Array


class TransformerLM(LanguageModel, Transformer):
    """Decoder-only Transformer language model (Vaswani et al. 2017; Radford et al. 2018).

    Attributes:
        bidirectional_prefix: the places of a given beginning see each other both ways, those
            behind it all before them (Liu et al. 2018; Raffel et al. 2020, 3.2.1). Segments say
            where it is: -n in the prefix of segment n; without such there is no prefix. A prompt
            that is read by `prefill` is one. Relative positions then tell what is before from
            what is behind, as in an encoder.
    """

    num_layers: PositiveInt = 4
    bidirectional_prefix: bool = False

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        self.decoder = self._stack(*self._heads(), causal=not self.bidirectional_prefix)

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        return (self.num_layers,)

    @nn.nowrap
    def longest_row(self) -> int | None:
        return self.max_positions if self.positions == "learned" else None

    def features(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """What the output layer sees, (B, T, d_model); segments of a packed row don't mix."""
        prefix_BT = None
        if self.bidirectional_prefix and segments_BT is not None:
            segments_BT, prefix_BT = split_prefix(segments_BT)
        place_BT = None if segments_BT is None else positions_in_segment(segments_BT)
        x_BTD = self._embed(self.decoder, self.embed(tokens_BT), place_BT, train)
        if segments_BT is None:
            mask = whole_mask(tokens_BT, causal=True)
        else:  # whatever stands in the padding must not reach a sum, not even as 0 * NaN
            x_BTD = jnp.where((segments_BT != 0)[:, :, None], x_BTD, 0)
            mask = self_mask(segments_BT, causal=True, prefix_BT=prefix_BT)
        place_BT = positions(tokens_BT) if place_BT is None else place_BT
        context = Context(mask, terms=self.decoder.terms(place_BT, place_BT))
        return self._finish(self.decoder(x_BTD, context, train))

    @nn.nowrap
    def init_carry(self, batch_size: int, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """Empty caches for max_len positions of num_beams hypotheses a row."""
        return self._init_carry(self._heads()[0], batch_size, max_len, num_beams)

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one token a hypothesis; returns the new carry and logits_RV."""
        return self._step(carry, token_R)

    def prefill(
        self, carry: dict[str, Any], tokens_BT: Array, lengths_B: Array
    ) -> tuple[dict[str, Any], Array]:
        """Reads the next tokens of each row, one hypothesis each, in one pass.

        With bidirectional_prefix they are a prefix: they see each other and all before them.

        Args:
            tokens_BT, lengths_B: ragged rows of at least one token; what stands in the
                padding is not read. The caches hold all of them.

        Returns:
            (the carry that lengths_B steps would leave but for a prefix, logits_BV after the
            last of them).
        """
        state, caches = carry["state"], carry["memory"]["caches"]
        rows_B, num_slots = jnp.arange(len(tokens_BT)), state["past"].shape[1]
        place_BT = state["position"][:, None] + positions(tokens_BT)
        read_BT = positions(tokens_BT) < lengths_B[:, None]
        x_BTD = self.decoder.enter(self.embed(tokens_BT), place_BT, num_slots)
        # Each place is a step of its own. Padding is written beyond the last slot, which is
        # nowhere.
        position_B = state["position"] + lengths_B
        mask = prompt_mask(place_BT, num_slots, position_B if self.bidirectional_prefix else None)
        new_BT = jnp.where(read_BT, place_BT, num_slots + positions(tokens_BT))
        terms = self.decoder.terms(place_BT, jnp.arange(num_slots)[None])
        slots = Slots(new_BT, mask, terms=terms)
        x_BTD, caches = self.decoder.step(x_BTD, caches, slots)
        past_BS = jnp.arange(num_slots) < position_B[:, None]
        carry = {
            "state": {"position": position_B, "past": past_BS},
            "memory": {"caches": caches},
        }
        return carry, self._logits(self._finish(x_BTD[rows_B, lengths_B - 1]))


class TransformerSeq2Seq(EncoderDecoder, Transformer):
    """The encoder-decoder Transformer with one vocabulary for both sides (Vaswani et al. 2017)."""

    num_encoder_layers: PositiveInt = 3
    num_decoder_layers: PositiveInt = 3

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        encoder, *decoder = self._heads()
        self.encoder = self._stack(encoder, causal=False)
        self.decoder = self._stack(*decoder, causal=True)

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        return self.num_encoder_layers, self.num_decoder_layers, self.num_decoder_layers

    def encode(self, source_BS: Array, train: bool = False) -> dict[str, Array]:
        """Reads the source (0 is padding): {"x": (B, S, d_model), "segments": (B, S)}."""
        segments_BS = (source_BS != 0).astype(jnp.int32)
        x_BSD = self._embed(self.encoder, self.embed(source_BS), None, train)
        # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
        x_BSD = jnp.where((segments_BS != 0)[:, :, None], x_BSD, 0)
        terms = self.encoder.terms(positions(source_BS), positions(source_BS))
        context = Context(self_mask(segments_BS, causal=False), terms=terms)
        x_BSD = self.encoder(x_BSD, context, train)
        return {"x": x_BSD, "segments": segments_BS}

    def _decode_features(self, encoded: dict, inputs_BT: Array, train: bool) -> Array:
        context = Context(
            whole_mask(inputs_BT, causal=True),
            encoded["x"],
            cross_mask(encoded["segments"], inputs_BT.shape[1]),
            self.decoder.terms(positions(inputs_BT), positions(inputs_BT)),
        )
        x_BTD = self._embed(self.decoder, self.embed(inputs_BT), None, train)
        return self._finish(self.decoder(x_BTD, context, train))

    def init_carry(self, encoded: dict, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """Empty caches, and the keys and values of the source for every layer."""
        batch_size = encoded["x"].shape[0]
        carry = self._init_carry(self._heads()[1], batch_size, max_len, num_beams)
        carry["memory"]["layers"] = self.decoder.memory(encoded["x"])
        carry["memory"]["segments"] = encoded["segments"]
        return carry

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        return self._step(carry, token_R)
