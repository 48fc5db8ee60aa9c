"""Words from their characters: convolutions and highway layers (Kim et al. 2016)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import Dense, Embed

Array = jax.Array

NUM_CHARACTERS = 263  # padding, 256 bytes, the two ends of a word, four tokens that are no words


class Highway(nn.Module):
    """y = g * relu(W x + b) + (1 - g) * x,  g = sigmoid(U x + c)  (Srivastava et al. 2015).

    c begins at -2, so that at first x is carried on.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width, axes = (x.shape[-1],), ("hidden", "mlp")
        new = jax.nn.relu(Dense(width, axes, dtype=self.dtype, name="transform")(x))
        start = nn.initializers.constant(-2.0)
        gate = Dense(width, axes, bias_init=start, dtype=self.dtype, name="gate")(x)
        return x + jax.nn.sigmoid(gate) * (new - x)


class CharacterEmbed(nn.Module):
    """A vector for each word from its characters.

    Convolutions of several widths over the characters, the greatest value of each filter over
    the places of the word, highway layers, and a projection (Kim et al. 2016; Peters 2018).

    Attributes:
        features: width of the vectors.
        filters: (characters seen, number of filters) of each convolution.
    """

    features: int
    filters: tuple[tuple[int, int], ...]
    character_size: int = 16
    num_highway: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, characters_BTW: Array) -> Array:
        """(B, T, W) ids of characters, 0 behind the end of a word, to (B, T, features)."""
        table = Embed(NUM_CHARACTERS, self.character_size, dtype=self.dtype, name="characters")
        inside = (characters_BTW != 0)[..., None]
        x = jnp.where(inside, table(characters_BTW), 0)
        found = []
        for width, count in self.filters:
            padded = jnp.pad(x, ((0, 0), (0, 0), (0, width - 1), (0, 0)))
            seen = [padded[:, :, i : i + x.shape[2]] for i in range(width)]
            convolution = Dense(
                (count,), ("hidden", "mlp"), dtype=self.dtype, name=f"width_{width}"
            )
            at_each = jax.nn.relu(convolution(jnp.concatenate(seen, axis=-1)))
            found.append(jnp.where(inside, at_each, 0).max(axis=2))  # relu: nothing is below 0
        y = jnp.concatenate(found, axis=-1)
        for i in range(self.num_highway):
            y = Highway(self.dtype, name=f"highway_{i}")(y)
        return Dense((self.features,), ("hidden", "embed"), dtype=self.dtype, name="projection")(y)
