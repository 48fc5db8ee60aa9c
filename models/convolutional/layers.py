"""Products with normalised weights, and convolutions as products over windows."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.layers import product

Array = jax.Array

HALF = np.float32(0.5**0.5)  # keeps the variance of a sum of two (Gehring et al. 2017, 3.2)


class NormedDense(nn.Module):
    """y = x W + b with W = g v / |v|, g a number for each output (Salimans & Kingma 2016).

    Attributes:
        gain: variance of y over that of x at the start: 4 before a gate, which leaves a
            quarter, and 1 elsewhere; times the rate of what dropout keeps (Gehring et al.
            2017, 3.5).
        weight_norm: False is a plain product.
    """

    features: int
    gain: float = 1.0
    weight_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        num_in, named = x.shape[-1], nn.with_logical_partitioning
        init = named(nn.initializers.normal((self.gain / num_in) ** 0.5), ("embed", "mlp"))
        kernel = self.param("kernel", init, (num_in, self.features), jnp.float32)
        if self.weight_norm:
            norm = jnp.linalg.norm(kernel, axis=0)
            scale = self.param("scale", named(lambda key: norm, ("mlp",)))
            kernel = kernel * (scale / norm)
        bias = self.param("bias", named(nn.initializers.zeros, ("mlp",)), (self.features,))
        return product(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


def windows(x_BLD: Array, width: int) -> Array:
    """All runs of `width` neighbours, side by side: (B, L - width + 1, width * D)."""
    length = x_BLD.shape[1] - width + 1
    return jnp.concatenate([x_BLD[:, i : i + length] for i in range(width)], axis=-1)


def centred_windows(x_BSD: Array, width: int, valid_BS: Array) -> Array:
    """The neighbourhood of each position; zeros stand beyond the ends and in the padding."""
    x_BSD = jnp.where(valid_BS[:, :, None], x_BSD, 0)
    return windows(jnp.pad(x_BSD, ((0, 0), ((width - 1) // 2, width // 2), (0, 0))), width)


def gated(x: Array) -> Array:
    """a * sigmoid(b), x = [a; b]: a gated linear unit (Dauphin et al. 2017)."""
    a, b = jnp.split(x, 2, axis=-1)
    return a * jax.nn.sigmoid(b)
