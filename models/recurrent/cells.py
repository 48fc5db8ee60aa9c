"""Recurrent cells: one definition serves the whole sequence and a single step.

A cell is a Linen module with two parts. `inputs` is what does not depend on the state,
one product for all time steps; `advance` is the rest of the step, and its products go
through `linear(name, h)` so that `hoisted_scan` can keep them.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.layers import Dense

Array = jax.Array
Linear = Callable[[str, Array], Array]


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate
    (Gers et al. 2000).

      i, f, o = sigmoid(W x + U h + b)     g = tanh(W x + U h + b)
      c' = f * c + i * g                   h' = o * tanh(c')

    Attributes:
        state_features: width of what multiplies U: hidden_size, or more where a context
            is fed in beside h.
    """

    hidden_size: int
    state_features: int | None = None
    forget_bias: float = 1.0  # Jozefowicz et al. 2015: start by remembering
    dtype: Any = jnp.float32

    def setup(self) -> None:
        hidden = self.hidden_size

        def bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jnp.zeros(shape, dtype).at[hidden : 2 * hidden].set(self.forget_bias)

        self.input = Dense((4 * hidden,), ("embed", "gates"), bias_init=bias, dtype=self.dtype)
        self.recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(_orthogonal_blocks, ("hidden", "gates")),
            (self.state_features or hidden, 4 * hidden),
            jnp.float32,
        )

    def inputs(self, x: Array) -> Array:
        """W x + b for all gates, over any leading axes."""
        return self.input(x)

    def weights(self) -> dict[str, Array]:
        """The matrices that `advance` multiplies with."""
        return {"recurrent": self.recurrent.astype(self.dtype)}

    @staticmethod
    def init_carry(batch_size: int, hidden_size: int, dtype: Any) -> tuple[Array, Array]:
        """c and h before the first step, (B, hidden_size) each."""
        zeros = jnp.zeros((batch_size, hidden_size), dtype)
        return zeros, zeros

    @staticmethod
    def advance(linear: Linear, carry: tuple[Array, Array], gates: Array, fed: Array) -> tuple:
        """One step from the hoisted gates and what is fed to U; returns the new (c, h).

        sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh serves all four gates.
        """
        c, _ = carry
        hidden = c.shape[-1]
        half = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), hidden).astype(c.dtype)
        gates = jnp.tanh((gates + linear("recurrent", fed)) * half) * half + (1 - half)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        # half is 1 for g, whose offset 1 - half is 0: it stays a plain tanh.
        c = f * c + i * g
        return c, o * jnp.tanh(c)


def _orthogonal_blocks(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """An orthogonal matrix for each gate (Saxe et al. 2014), side by side."""
    rows, columns = shape
    keys = jax.random.split(key, 4)
    block = nn.initializers.orthogonal()
    return jnp.concatenate([block(k, (rows, columns // 4), dtype) for k in keys], axis=1)


CELLS = {"lstm": LSTMCell}
