"""Layers that every model shares: dense products, embeddings, dropout, norms.

Each parameter carries the names of its axes ("embed", "heads", "mlp", ...), which
`training/parallel.py` maps to the axes of a device mesh. Parameters are float32;
`dtype` is the type of the computation.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trees import constrain, spread

Array = jax.Array
Initializer = Callable[..., Array]

FEW_ROWS = 32  # up to so many, the order in which a large matrix is read decides (measured)

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


_planned_for: ContextVar[str] = ContextVar("planned_for", default="")


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced inside is for devices of this platform, which may not be here."""
    token = _planned_for.set(platform)
    try:
        yield
    finally:
        _planned_for.reset(token)


def _on_cpu() -> bool:
    return (_planned_for.get() or jax.default_backend()) == "cpu"


def _flat_init(init: Initializer, num_in: int) -> Initializer:
    """Initialises a kernel of several axes as the matrix that it stands for."""

    def flat(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        if 0 in shape:  # of attention without heads; the formulas divide by the sizes
            return jnp.zeros(shape, dtype)
        matrix = (math.prod(shape[:num_in]), math.prod(shape[num_in:]))
        return init(key, matrix, dtype).reshape(shape)

    return flat


def product(x: Array, kernel: Array, num_in: int = 1) -> Array:
    """The sum over the last `num_in` axes of x and the first of kernel.

    Batch and time are flattened before it: XLA's CPU backend contracts one axis at full speed
    and two axes three to five times slower (weight gradient).
    """
    if spread():
        return jnp.tensordot(x, kernel, num_in)
    batch, features = x.shape[: x.ndim - num_in], kernel.shape[num_in:]
    inputs = math.prod(kernel.shape[:num_in])
    matrix = kernel.reshape(inputs, math.prod(features))
    flat = _matrix_product(x.reshape(math.prod(batch), inputs), matrix)
    return flat.reshape(*batch, *features)


def _matrix_product(x_ND: Array, kernel_DF: Array) -> Array:
    """x W, so that XLA's CPU backend makes the gradient of a W that narrows as that of W^T.

    It multiplies into a high and narrow matrix at half the speed of a low and wide one. The
    turned W costs a copy, which only many rows repay.
    """
    inputs, features = kernel_DF.shape
    if inputs <= features or len(x_ND) <= inputs or not _on_cpu():
        return jnp.dot(x_ND, kernel_DF)
    kernel_FD = jax.lax.optimization_barrier(kernel_DF.T)
    return jax.lax.dot_general(x_ND, kernel_FD, (((1,), (1,)), ((), ())))


class Dense(nn.Module):
    """y = x W + b over the last `num_in` axes of x.

    Attributes:
        features: sizes of the new axes, such as (num_heads, head_dim).
        axes: one name for each axis of the kernel.
        num_in: how many trailing axes of x the product contracts.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    num_in: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    bias_init: Initializer = nn.initializers.zeros
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-self.num_in :]
        init = nn.with_logical_partitioning(_flat_init(self.kernel_init, self.num_in), self.axes)
        kernel = self.param("kernel", init, (*inputs, *self.features), jnp.float32)
        y = product(x.astype(self.dtype), kernel.astype(self.dtype), self.num_in)
        if self.use_bias:
            init = nn.with_logical_partitioning(self.bias_init, self.axes[self.num_in :])
            bias = self.param("bias", init, self.features, jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class Embed(nn.Module):
    """A table of vectors, which may be the output layer too (Press & Wolf 2017).

    Attributes:
        scaled: what is looked up is scaled by features^0.5 (Vaswani et al. 2017, 3.4), to unit
            variance in a fresh table.
        stddev: of a fresh table; 0 is features^-0.5.
    """

    num_embeddings: int
    features: int
    dtype: Any = jnp.float32
    scaled: bool = True
    stddev: float = 0.0

    def setup(self) -> None:
        init = nn.initializers.normal(stddev=self.stddev or self.features**-0.5)
        init = nn.with_logical_partitioning(init, ("vocab", "embed"))
        shape = (self.num_embeddings, self.features)
        self.embedding = self.param("embedding", init, shape, jnp.float32)

    def __call__(self, tokens: Array) -> Array:
        """Looks tokens up."""
        table_VE = constrain(self.embedding, "vocab", None)  # put together before, not after
        x = jnp.take(table_VE, tokens, axis=0, mode="clip")
        return (x * self.features**0.5 if self.scaled else x).astype(self.dtype)


class OutputLayer(nn.Module):
    """The (vocabulary, features) matrix and bias of an output layer of its own."""

    vocab_size: int
    features: int

    def setup(self) -> None:
        init = nn.initializers.normal(stddev=self.features**-0.5)
        init = nn.with_logical_partitioning(init, ("vocab", "embed"))
        self.kernel = self.param("kernel", init, (self.vocab_size, self.features), jnp.float32)

    def __call__(self) -> Array:
        return self.kernel


class LayerNorm(nn.Module):
    """scale * (x - mean) / sqrt(variance + epsilon) + bias over the last axis (Ba et al. 2016).

    Computed in float32.
    """

    dtype: Any = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        named, shape = nn.with_logical_partitioning, x.shape[-1:]
        scale = self.param("scale", named(nn.initializers.ones, ("embed",)), shape)
        bias = self.param("bias", named(nn.initializers.zeros, ("embed",)), shape)
        return layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)


def layer_norm(x: Array, scale: Array, bias: Any = 0, epsilon: float = 1e-6) -> Array:
    """The formula of LayerNorm, in float32 or wider."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - x.mean(-1, keepdims=True)
    variance = jnp.square(x).mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + epsilon) * scale + bias


class RMSNorm(nn.Module):
    """scale * x / sqrt(mean of x^2 + epsilon) over the last axis (Zhang & Sennrich 2019).

    Computed in float32.
    """

    dtype: Any = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale = self.param("scale", init, x.shape[-1:])
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = jnp.square(x).mean(-1, keepdims=True)
        return (x * jax.lax.rsqrt(mean + self.epsilon) * scale).astype(self.dtype)


NORMS: dict[str, type[nn.Module]] = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with a mask from a hash of place and key.

    A mask needs bits that do not correlate, not a cryptographic generator, which on a CPU
    costs a tenth of a training step: `hashed_bits` is seven times faster than
    `jax.random.bits`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)


def keep_mask(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """False at a random part of the places, `rate` of them."""
    return hashed_bits(key, shape) >= np.uint32(rate * 2**32)


def hashed_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """32 bits an element: the finaliser of MurmurHash3 (Appleby 2011), twice, over a counter.

    Each word of the key enters one of the two rounds, so that neither keys nor places that
    differ in one bit give masks that are alike.
    """
    words = jax.random.key_data(jax.random.split(key, 1)[0]).astype(jnp.uint32)
    if spread():  # each device counts the places that it holds
        sizes = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
        bits = jnp.zeros(shape, jnp.uint32)
        for axis, size in enumerate(sizes):
            bits += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(size)
    else:
        bits = jax.lax.iota(jnp.uint32, math.prod(shape))
    for word in (words[0], words[-1]):
        bits = (bits ^ word) + np.uint32(0x9E3779B9)
        bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
        bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
        bits = bits ^ (bits >> 16)
    return bits.reshape(shape)


def logits(x: Array, kernel_VD: Array | None, bias_V: Array | None = None) -> Array:
    """Scores of the whole vocabulary in float32: (..., D) and (V, D) to (..., V).

    Without a kernel, x are logits already. The few rows of a step are turned, and the table is
    read as it lies: XLA's CPU backend would copy all of it into another order.
    """
    if kernel_VD is None:
        return x
    table_VD = kernel_VD.astype(x.dtype)
    if x.ndim == 2 and len(x) <= FEW_ROWS and _on_cpu() and not spread():
        columns_DB = jax.lax.optimization_barrier(x.T)
        scores = jax.lax.optimization_barrier(jnp.dot(table_VD, columns_DB)).T
    else:
        scores = product(x, table_VD.T)
    scores = scores.astype(jnp.float32)
    return scores if bias_V is None else scores + bias_V
