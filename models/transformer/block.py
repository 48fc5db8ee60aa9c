"""One layer of a Transformer: self-attention, cross-attention if it has one, feed-forward."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from models.attention import MultiHeadAttention, mechanism
from models.attention.positions import PositionOptions, Terms
from models.layers import NORMS, Dense, Dropout
from models.masks import Mask
from trees import constrain

Array = jax.Array
KeysValues = tuple[Array, Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "swish": nn.swish,
}
GATED = {"gated_relu": "relu", "gated_gelu": "gelu_tanh", "swiglu": "swish"}
Activation = Literal["relu", "gelu", "gelu_tanh", "swish", "gated_relu", "gated_gelu", "swiglu"]


def activation_of(name: str) -> Callable[[Array], Array]:
    """The function of a name, or the one inside a gate."""
    return ACTIVATIONS[GATED.get(name, name)]


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What a stack hands down to its layers; num_heads before any were removed."""

    d_model: int
    num_heads: int
    d_ff: int
    dropout_rate: float
    layer_norm: str
    attention: str
    attention_block: int
    dtype: Any
    head_dim: int
    num_kv_heads: int
    norm: str
    norm_epsilon: float
    embedding_norm: bool
    activation: str
    use_bias: bool
    scale_attention: bool
    positions: PositionOptions

    def make_norm(self) -> nn.Module:
        """A layer of `norm`."""
        return NORMS[self.norm](dtype=self.dtype, epsilon=self.norm_epsilon)

    def make_attention(self, num_heads: int) -> MultiHeadAttention:
        """Attention with so many heads."""
        return MultiHeadAttention(
            num_heads,
            self.head_dim,
            self.d_model,
            attend=mechanism(self.attention, self.attention_block),
            dtype=self.dtype,
            num_kv_heads=self.num_kv_heads,
            use_bias=self.use_bias,
            scaled=self.scale_attention,
        )


@flax.struct.dataclass
class Context:
    """What all layers of one pass share.

    Attributes:
        mask: for self-attention.
        encoded_BSD, cross_mask: the encoder's output, for decoders that have one.
        terms: of positions, for self-attention.
    """

    mask: Mask
    encoded_BSD: Array | None = None
    cross_mask: Mask | None = None
    terms: Terms = Terms()


@flax.struct.dataclass
class Slots:
    """Where one step of T hypotheses a row writes into a cache, and what of it each may see.

    Attributes:
        new_BT: the slot of the new key and value of each hypothesis.
        mask: over the slots of the cache, for self-attention.
        cross_mask: over the source, for decoders that have one.
        terms: of positions, from the new ones to those of the slots.
    """

    new_BT: Array
    mask: Mask
    cross_mask: Mask | None = None
    terms: Terms = Terms()


class FeedForward(nn.Module):
    """f(x W1 + b1) W2 + b2 (Vaswani et al. 2017, eq. 2), or with a gate
    (f(x W1 + b1) * (x V + c)) W2 + b2 (Shazeer 2020)."""

    options: BlockOptions

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        options = self.options

        def dense(size: int, axes: tuple[str, str], name: str) -> Dense:
            return Dense((size,), axes, use_bias=options.use_bias, dtype=options.dtype, name=name)

        x_BTF = dense(options.d_ff, ("embed", "mlp"), "hidden")(x_BTD)
        x_BTF = activation_of(options.activation)(x_BTF)
        if options.activation in GATED:
            x_BTF = x_BTF * dense(options.d_ff, ("embed", "mlp"), "linear")(x_BTD)
        x_BTF = constrain(x_BTF, "batch", "length", "mlp")
        return dense(options.d_model, ("mlp", "embed"), "out")(x_BTF)


class Block(nn.Module):
    """Sub-layers with residual connections and layer norm around (post) or inside (pre).

    post: norm(x + dropout(f(x))) (Vaswani et al. 2017, 3.1)
    pre:  x + dropout(f(norm(x))) (Xiong et al. 2020), with one more norm after the stack

    Attributes:
        heads: numbers of heads of its self-attention and, if it has one, cross-attention.
    """

    options: BlockOptions
    heads: tuple[int, ...]
    cross: bool = False

    def setup(self) -> None:
        options = self.options
        self.self_attention = options.make_attention(self.heads[0])
        self.self_norm = options.make_norm()
        if self.cross:
            self.cross_attention = options.make_attention(self.heads[1])
            self.cross_norm = options.make_norm()
        self.feed_forward = FeedForward(options)
        self.feed_forward_norm = options.make_norm()
        self.dropout = Dropout(options.dropout_rate)

    def _residual(self, x_BTD: Array, sublayer: Any, norm: nn.Module, train: bool) -> Array:
        if self.options.layer_norm == "pre":
            x_BTD = x_BTD + self.dropout(sublayer(norm(x_BTD)), train)
        else:
            x_BTD = norm(x_BTD + self.dropout(sublayer(x_BTD), train))
        return constrain(x_BTD, "batch", "length", "residual")

    def __call__(self, x_BTD: Array, context: Context, train: bool) -> Array:
        """The whole sequence at once."""

        def look_within(y_BTD: Array) -> Array:
            terms = context.terms
            keys_values = self.self_attention.keys_values(y_BTD, terms)
            return self.self_attention(y_BTD, keys_values, context.mask, terms)

        x_BTD = self._residual(x_BTD, look_within, self.self_norm, train)
        memory = self.cross_attention.keys_values(context.encoded_BSD) if self.cross else None
        return self._after_self(x_BTD, memory, context.cross_mask, train)

    def _after_self(
        self, x_BTD: Array, memory: KeysValues | None, cross_mask: Mask | None, train: bool
    ) -> Array:
        x_BTD = self._across(x_BTD, memory, cross_mask, train)
        return self._residual(x_BTD, self.feed_forward, self.feed_forward_norm, train)

    def _across(
        self, x_BTD: Array, memory: KeysValues | None, cross_mask: Mask | None, train: bool
    ) -> Array:
        if not self.cross:
            return x_BTD

        def look_across(y_BTD: Array) -> Array:
            return self.cross_attention(y_BTD, memory, cross_mask)

        return self._residual(x_BTD, look_across, self.cross_norm, train)

    def memory(self, encoded_BSD: Array) -> KeysValues:
        """Keys and values of the encoder's output as a cache, made once for a whole search."""
        key_BSHK, value_BSHK = self.cross_attention.keys_values(encoded_BSD)
        return key_BSHK.transpose(0, 2, 3, 1), value_BSHK.transpose(0, 2, 1, 3)

    def step(
        self, x_BTD: Array, cache: KeysValues, slots: Slots, memory: KeysValues | None
    ) -> tuple[Array, KeysValues]:
        """One more position: writes its key and value into the cache, then looks at the cache.

        T are the hypotheses of a row: they share its cache and don't see one another.
        """
        written: KeysValues = cache

        def look_within(y_BTD: Array) -> Array:
            nonlocal written
            rows_B1 = jnp.arange(slots.new_BT.shape[0])[:, None]

            key_BTHK, value_BTHK = self.self_attention.keys_values(y_BTD, slots.terms)
            key_BHKS = cache[0].at[rows_B1, :, :, slots.new_BT].set(key_BTHK, unique_indices=True)
            value_BHSK = cache[1].at[rows_B1, :, slots.new_BT].set(value_BTHK, unique_indices=True)
            written = key_BHKS, value_BHSK
            return self.self_attention(y_BTD, from_cache(written), slots.mask, slots.terms)

        x_BTD = self._residual(x_BTD, look_within, self.self_norm, False)
        memory = from_cache(memory) if memory else None
        return self._after_self(x_BTD, memory, slots.cross_mask, False), written


def from_cache(cache: KeysValues) -> KeysValues:
    """(B, S, H, K) keys and values from the layout of a cache, keys (B, H, K, S) and values
    (B, H, S, K), in which the products of attention copy nothing."""
    key_BHKS, value_BHSK = cache
    return key_BHKS.transpose(0, 3, 1, 2), value_BHSK.transpose(0, 2, 1, 3)


def init_caches(
    options: BlockOptions, heads: Sequence[int], batch_size: int, num_slots: int
) -> list[KeysValues]:
    """Empty keys and values of self-attention for layers of so many heads; see from_cache."""
    sizes = [
        (batch_size, options.num_kv_heads or num_heads, options.head_dim, num_slots)
        for num_heads in heads
    ]
    keys = [jnp.zeros(size, options.dtype) for size in sizes]
    return [(keys_BHKS, keys_BHKS.swapaxes(2, 3)) for keys_BHKS in keys]
