"""What all Transformers share: options, embeddings, the output, and a step with caches."""

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.attention.positions import PER_HEAD, PositionOptions, Scheme
from models.base import TiedOutput
from models.layers import DTYPES, Dropout, Embed, OutputLayer
from models.masks import cross_mask, step_mask
from models.remat import Remat
from models.transformer.block import Activation, BlockOptions, Slots, init_caches
from models.transformer.stack import Stack
from registry import ConfigError, NonNegativeInt, PositiveFloat, PositiveInt, Rate
from trees import constrain

Array = jax.Array
UNWRITTEN = 30.0  # e^-30 of the other's probability is below the rounding of float32


class Transformer(TiedOutput):
    """Options and embeddings that the models share. The defaults are those of Vaswani et al.
    (2017) with pre-layer-norm; configs/base.py has the families.

    Attributes:
        attention: a mechanism of models/attention/; attention_block: queries that `blockwise` holds
            the scores of at once.
        num_heads: of each layer.
        head_dim: of each head; 0 is d_model / num_heads.
        num_kv_heads: heads of keys and values, each for as many heads of queries: 1 is
            multi-query (Shazeer 2019), more are grouped-query attention (Ainslie et al. 2023);
            0 is num_heads.
        heads_kept: numbers of heads, of width head_dim as before, that each attention layer
            has left: first all of the encoder's self-attention, then of the decoder's, then
            of cross-attention. Empty: num_heads everywhere.
        positions: a scheme of models/attention/positions.py.
        max_positions: the longest row, with learned positions, packed or not. Steps beyond it
            share the last.
        relative_buckets, relative_max_distance: of relative positions.
        layer_norm: where it stands (models/transformer/block.py); norm, norm_epsilon: which.
        embedding_norm: one more after the embeddings.
        use_bias: whether products have one; norms and the output are asked on their own.
        scale_embeddings: by d_model^0.5; scale_attention: products by 1 / sqrt(head_dim);
            scale_output: what the output layer sees by d_model^-0.5.
        use_output_bias: whether a bias is added to the logits.
        unwritten: ids that only stand in inputs, and whose embeddings may repeat those of other
            ids, as after an import: their logits are lowered by UNWRITTEN, so that they take
            nothing from the others.
    """

    vocab_size: PositiveInt
    d_model: PositiveInt = 256
    num_heads: PositiveInt = 4
    d_ff: PositiveInt = 1024
    dropout_rate: Rate = 0.1
    layer_norm: Literal["pre", "post"] = "pre"
    tie_embeddings: bool = True
    attention: Literal["dot_product", "fused", "blockwise"] = "fused"
    attention_block: PositiveInt = 128
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = False
    scan_layers: bool = False
    heads_kept: tuple[NonNegativeInt, ...] = ()
    head_dim: NonNegativeInt = 0
    num_kv_heads: NonNegativeInt = 0
    positions: Scheme = "sinusoidal"
    max_positions: PositiveInt = 512
    relative_buckets: PositiveInt = 32
    relative_max_distance: PositiveInt = 128
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_epsilon: PositiveFloat = 1e-6
    embedding_norm: bool = False
    activation: Activation = "relu"
    use_bias: bool = True
    scale_embeddings: bool = True
    scale_attention: bool = True
    scale_output: bool = False
    use_output_bias: bool = False
    unwritten: tuple[NonNegativeInt, ...] = ()

    def _check(self) -> None:
        num_attentions = sum(self._attention_layers())
        if self.heads_kept and (
            len(self.heads_kept) != num_attentions or max(self.heads_kept) > self.num_heads
        ):
            raise ConfigError(
                f"config.model.heads_kept must have a number of at most {self.num_heads} for each "
                f"of {num_attentions} attention layers, got {list(self.heads_kept)}."
            )
        if self.heads_kept and not self.heads_are_alike():
            raise ConfigError(
                "config.model.heads_kept needs heads that are alike: neither num_kv_heads nor "
                f"positions of {' or '.join(PER_HEAD)}."
            )
        if not self.head_dim and self.d_model % (2 * self.num_heads):
            raise ConfigError(
                f"config.model.d_model must be an even multiple of num_heads ({self.num_heads}), "
                f"got {self.d_model}."
            )
        if self.num_kv_heads and self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"config.model.num_kv_heads must divide num_heads ({self.num_heads}), got "
                f"{self.num_kv_heads}."
            )
        if self.unwritten and max(self.unwritten) >= self.vocab_size:
            raise ConfigError(
                f"config.model.unwritten must be ids below {self.vocab_size}, got "
                f"{list(self.unwritten)}."
            )
        self._check_positions(self._options().positions)

    def _check_positions(self, positions: PositionOptions) -> None:
        if positions.scheme == "rotary" and self.head_dim % 2:
            raise ConfigError(
                f"config.model.head_dim must be even with positions='rotary', got {self.head_dim}."
            )
        buckets, furthest = positions.num_buckets, positions.max_distance
        if positions.scheme == "relative" and (buckets % 4 or furthest <= buckets // 2):
            raise ConfigError(
                "config.model.relative_buckets must be a multiple of 4, and relative_max_distance "
                f"more than half of it, got {buckets} and {furthest}."
            )

    @nn.nowrap
    def heads_are_alike(self) -> bool:
        """Whether a head may stand in the place of another, so that a layer may have fewer."""
        options = self._options()
        return not options.num_kv_heads and options.positions.scheme not in PER_HEAD

    @nn.nowrap
    def _options(self) -> BlockOptions:
        return BlockOptions(
            d_model=self.d_model,
            num_heads=self.num_heads,
            d_ff=self.d_ff,
            dropout_rate=self.dropout_rate,
            layer_norm=self.layer_norm,
            attention=self.attention,
            attention_block=self.attention_block,
            dtype=DTYPES[self.dtype],
            head_dim=self.head_dim or self.d_model // self.num_heads,
            num_kv_heads=0 if self.num_kv_heads == self.num_heads else self.num_kv_heads,
            norm=self.norm,
            norm_epsilon=self.norm_epsilon,
            embedding_norm=self.embedding_norm,
            activation=self.activation,
            use_bias=self.use_bias,
            scale_attention=self.scale_attention,
            positions=PositionOptions(
                self.positions,
                self.max_positions,
                self.relative_buckets,
                self.relative_max_distance,
            ),
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

    def _stack(self, *heads: tuple[int, ...], causal: bool) -> Stack:
        """Layers with so many heads in self-attention, and in cross-attention if given."""
        cross = len(heads) > 1
        by_layer = tuple(zip(*heads, strict=True))
        return Stack(self._options(), by_layer, cross, self.remat, self.scan_layers, causal)

    def _setup_embeddings(self) -> None:
        # Logits of a fresh model have a variance near 1, with any scales.
        stddev = 1.0 if self.scale_output else self.d_model**-0.5
        dtype, scaled = DTYPES[self.dtype], self.scale_embeddings
        self.embed = Embed(self.vocab_size, self.d_model, dtype, scaled, stddev)
        self.dropout = Dropout(self.dropout_rate)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, self.d_model)
        if self.use_output_bias:
            named = nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",))
            self.logits_bias = self.param("logits_bias", named, (self.vocab_size,))

    def output_bias(self) -> Array | None:
        """What is added to the logits, bias_V, or None."""
        bias_V = self.logits_bias if self.use_output_bias else None
        if not self.unwritten:
            return bias_V
        lowered_V = np.zeros(self.vocab_size, np.float32)
        lowered_V[list(self.unwritten)] = -UNWRITTEN
        return jnp.asarray(lowered_V) if bias_V is None else bias_V + lowered_V

    def _embed(self, stack: Any, x_BTD: Array, place_BT: Array | None, train: bool) -> Array:
        """Embedded tokens as a stack reads them; place_BT None means 0, 1, 2, ...

        Raises:
            ConfigError: the rows, packed or not, are longer than the learned positions.
        """
        if self.positions == "learned" and x_BTD.shape[1] > self.max_positions:
            raise ConfigError(
                f"config.model.max_positions ({self.max_positions}) is less than the "
                f"{x_BTD.shape[1]} tokens of a row."
            )
        x_BTD = stack.enter(x_BTD, place_BT, x_BTD.shape[1])
        x_BTD = constrain(x_BTD, "batch", "length", "residual")
        return self.dropout(x_BTD, train)

    def _finish(self, x: Array) -> Array:
        """The last layer's output as the output layer sees it."""
        return x * self.d_model**-0.5 if self.scale_output else x

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
        x_RD = self.decoder.enter(self.embed(token_R), position_R, num_slots // beams)

        slot_R = position_R * beams + jnp.arange(num_rows) % beams
        past_RS = state["past"].at[jnp.arange(num_rows), slot_R].set(True, unique_indices=True)
        slots = Slots(
            slot_R.reshape(batch_size, beams),
            step_mask(past_RS.reshape(batch_size, beams, num_slots)),
            cross_mask(memory["segments"], beams) if "segments" in memory else None,
            self.decoder.terms(
                position_R.reshape(batch_size, beams), np.arange(num_slots)[None] // beams
            ),
        )
        x_BTD, caches = self.decoder.step(
            x_RD.reshape(batch_size, beams, -1), memory["caches"], slots, memory.get("layers")
        )
        state = {"position": position_R + 1, "past": past_RS}
        scores_RV = self._logits(self._finish(x_BTD.reshape(num_rows, -1)))
        return {"state": state, "memory": {**memory, "caches": caches}}, scores_RV
