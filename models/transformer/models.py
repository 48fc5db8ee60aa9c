"""The two Transformers of the table: a language model and an encoder-decoder."""

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.base import EncoderDecoder, LanguageModel, TiedOutput
from models.layers import DTYPES, Dropout, Embed, OutputLayer, logits, sinusoidal_positions
from models.masks import cross_mask, positions_in_segment, self_mask, step_mask
from models.transformer.block import BlockOptions, Context, Slots, init_caches
from models.transformer.stack import Stack
from registry import ConfigError, NonNegativeInt, PositiveInt, Rate

Array = jax.Array


class _Transformer(TiedOutput):
    """Options and embeddings that both models share.

    Attributes:
        num_heads: of each layer; head_dim is d_model / num_heads.
        heads_kept: numbers of heads, of width head_dim as before, that each attention layer
            has left: first all of the encoder's self-attention, then of the decoder's, then
            of cross-attention. Empty: num_heads everywhere.
    """

    vocab_size: PositiveInt
    d_model: PositiveInt = 256
    num_heads: PositiveInt = 4
    d_ff: PositiveInt = 1024
    dropout_rate: Rate = 0.1
    layer_norm: Literal["pre", "post"] = "pre"
    tie_embeddings: bool = True
    attention: Literal["dot_product", "fused"] = "fused"
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    scan_layers: bool = False
    heads_kept: tuple[NonNegativeInt, ...] = ()

    def _check(self) -> None:
        num_attentions = sum(self._attention_layers())
        if self.heads_kept and (
            len(self.heads_kept) != num_attentions or max(self.heads_kept) > self.num_heads
        ):
            raise ConfigError(
                f"config.model.heads_kept must have a number of at most {self.num_heads} for each "
                f"of {num_attentions} attention layers, got {list(self.heads_kept)}."
            )
        if self.d_model % (2 * self.num_heads):
            raise ConfigError(
                f"config.model.d_model must be an even multiple of num_heads ({self.num_heads}), "
                f"got {self.d_model}."
            )

    @nn.nowrap
    def _options(self) -> BlockOptions:
        return BlockOptions(
            self.d_model,
            self.num_heads,
            self.d_ff,
            self.dropout_rate,
            self.layer_norm,
            self.attention,
            DTYPES[self.dtype],
        )

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        """How many layers each part has, in the order of heads_kept."""
        raise NotImplementedError

    @nn.nowrap
    def _heads(self) -> list[tuple[int, ...]]:
        """Heads of the layers of each part."""
        layers = self._attention_layers()
        left = iter(self.heads_kept or (self.num_heads,) * sum(layers))
        return [tuple(itertools.islice(left, num_layers)) for num_layers in layers]

    def _stack(self, *heads: tuple[int, ...]) -> Stack:
        """Layers with so many heads in self-attention, and in cross-attention if given."""
        cross = len(heads) > 1
        by_layer = tuple(zip(*heads, strict=True))
        return Stack(self._options(), by_layer, cross, self.remat, self.scan_layers)

    def _setup_embeddings(self) -> None:
        self.embed = Embed(self.vocab_size, self.d_model, dtype=DTYPES[self.dtype])
        self.dropout = Dropout(self.dropout_rate)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, self.d_model)

    def _embed(self, tokens_BT: Array, place_BT: Array | None, train: bool) -> Array:
        """Embeds tokens and adds positions; place_BT None means 0, 1, 2, ..."""
        x_BTD = self.embed(tokens_BT)
        table = sinusoidal_positions(tokens_BT.shape[1], self.d_model)
        where = jnp.asarray(table, x_BTD.dtype)
        x_BTD = x_BTD + (where if place_BT is None else where[place_BT])
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "length", "embed"))
        return self.dropout(x_BTD, train)

    @nn.nowrap
    def _init_carry(
        self, heads: tuple[int, ...], batch_size: int, max_len: int, num_beams: int
    ) -> dict[str, Any]:
        """No past, and caches in which each hypothesis of a row has a slot at each position."""
        num_slots = max_len * num_beams
        state = {
            "position": jnp.zeros(batch_size, jnp.int32),
            "past": jnp.zeros((batch_size, num_slots), bool),
        }
        caches = init_caches(self._options(), heads, batch_size, num_slots)
        return {"state": state, "memory": {"caches": caches}}

    def _step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one token for each of R = B * T hypotheses, those of one row side by side."""
        state, memory = carry["state"], carry["memory"]
        position_R, num_rows = state["position"], token_R.shape[0]
        batch_size, *_, num_slots = memory["caches"][0][0].shape
        beams = num_rows // batch_size
        x_RD = self.embed(token_R)
        table = sinusoidal_positions(num_slots // beams, self.d_model)
        x_RD = x_RD + jnp.asarray(table, x_RD.dtype)[position_R]

        slot_R = position_R * beams + jnp.arange(num_rows) % beams
        past_RS = state["past"].at[jnp.arange(num_rows), slot_R].set(True, unique_indices=True)
        slots = Slots(
            slot_R.reshape(batch_size, beams),
            step_mask(past_RS.reshape(batch_size, beams, num_slots)),
            cross_mask(memory["segments"], beams) if "segments" in memory else None,
        )
        x_BTD, caches = self.decoder.step(
            x_RD.reshape(batch_size, beams, -1), memory["caches"], slots, memory.get("layers")
        )
        state = {"position": position_R + 1, "past": past_RS}
        scores_RV = logits(x_BTD.reshape(num_rows, -1), self.output_layer())
        return {"state": state, "memory": {**memory, "caches": caches}}, scores_RV


class TransformerLM(LanguageModel, _Transformer):
    """Decoder-only Transformer language model (Vaswani et al. 2017; Radford et al. 2018)."""

    num_layers: PositiveInt = 4

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        self.decoder = self._stack(*self._heads())

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        return (self.num_layers,)

    def features(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """What the output layer sees, (B, T, d_model); segments of a packed row don't mix."""
        place_BT = None if segments_BT is None else positions_in_segment(segments_BT)
        x_BTD = self._embed(tokens_BT, place_BT, train)
        if segments_BT is None:
            segments_BT = jnp.ones_like(tokens_BT)
        else:  # whatever stands in the padding must not reach a sum, not even as 0 * NaN
            x_BTD = jnp.where((segments_BT != 0)[:, :, None], x_BTD, 0)
        return self.decoder(x_BTD, Context(self_mask(segments_BT, causal=True)), train)

    @nn.nowrap
    def init_carry(self, batch_size: int, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """Empty caches for max_len positions of num_beams hypotheses a row."""
        return self._init_carry(self._heads()[0], batch_size, max_len, num_beams)

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one token a hypothesis; returns the new carry and logits_RV."""
        return self._step(carry, token_R)


class TransformerSeq2Seq(EncoderDecoder, _Transformer):
    """The encoder-decoder Transformer with one vocabulary for both sides (Vaswani et al. 2017)."""

    num_encoder_layers: PositiveInt = 3
    num_decoder_layers: PositiveInt = 3

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        encoder, *decoder = self._heads()
        self.encoder, self.decoder = self._stack(encoder), self._stack(*decoder)

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        return self.num_encoder_layers, self.num_decoder_layers, self.num_decoder_layers

    def encode(self, source_BS: Array, train: bool = False) -> dict[str, Array]:
        """Reads the source (0 is padding): {"x": (B, S, d_model), "segments": (B, S)}."""
        segments_BS = (source_BS != 0).astype(jnp.int32)
        x_BSD = self._embed(source_BS, None, train)
        # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
        x_BSD = jnp.where((segments_BS != 0)[:, :, None], x_BSD, 0)
        x_BSD = self.encoder(x_BSD, Context(self_mask(segments_BS, causal=False)), train)
        return {"x": x_BSD, "segments": segments_BS}

    def _decode_features(self, encoded: dict, inputs_BT: Array, train: bool) -> Array:
        context = Context(
            self_mask(jnp.ones_like(inputs_BT), causal=True),
            encoded["x"],
            cross_mask(encoded["segments"], inputs_BT.shape[1]),
        )
        return self.decoder(self._embed(inputs_BT, None, train), context, train)

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
