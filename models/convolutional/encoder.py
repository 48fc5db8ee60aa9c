"""The convolutional encoder of a recurrent decoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.convolutional.layers import centred_windows
from models.layers import Dense, Dropout, Embed

Array = jax.Array


class ConvolutionalEncoder(nn.Module):
    """Two stacks over words and positions (Gehring et al. 2016): one is looked at by the
    score (CNN-a, the keys), the other is what is summed (CNN-c, the values).

      x^0 = W (word + position)     x^{l+1} = tanh(x^l + conv(x^l))

    CNN-c has half as many layers as CNN-a, as in the paper's larger models.

    Attributes:
        max_positions: words beyond it share the last position.
    """

    hidden_size: int
    num_layers: int
    kernel_size: int = 3
    max_positions: int = 256
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BSE: Array, valid_BS: Array, train: bool) -> tuple[Array, Array]:
        """Embedded words to (keys, values), (B, S, hidden_size) each, 0 at padding."""
        places = Embed(self.max_positions, x_BSE.shape[-1], dtype=self.dtype, name="positions")
        x_BSE = x_BSE + places(jnp.arange(x_BSE.shape[1]))
        start_BSD = Dense((self.hidden_size,), ("embed", "mlp"), dtype=self.dtype)(x_BSE)
        ends = []
        for stack, depth in (("a", self.num_layers), ("c", max(1, self.num_layers // 2))):
            x_BSD = start_BSD
            for i in range(depth):
                dropped_BSD = Dropout(self.dropout_rate)(x_BSD, train)
                near_BSX = centred_windows(dropped_BSD, self.kernel_size, valid_BS)
                conv = Dense(
                    (self.hidden_size,), ("mlp", "embed"), dtype=self.dtype, name=f"{stack}_{i}"
                )
                x_BSD = jnp.tanh(x_BSD + conv(near_BSX))
            ends.append(jnp.where(valid_BS[:, :, None], x_BSD, 0))
        return ends[0], ends[1]
