"""Schemes of positions: how attention, which sees a set, is told the order of what it sees.

A scheme adds to embeddings (`embed`), turns queries and keys, or adds to scores (`terms`):

  sinusoidal         sines at even and cosines at odd features (Vaswani et al. 2017, 3.5)
  sinusoidal_halves  the same table, all sines before all cosines (Marian)
  learned            a vector for each position (Gehring et al. 2017; GPT, BERT, BART)
  relative           a learned bias for each head and bucket of distances (Raffel et al. 2020)
  rotary             queries and keys turned by their position (Su et al. 2021)
  alibi              minus a slope of each head times the distance (Press et al. 2022)
  none               nothing

Positions are data, counted within a segment: whole and packed rows, single steps, hypotheses
of a search and ragged prompts all use these functions.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Scheme = Literal[
    "sinusoidal", "sinusoidal_halves", "learned", "relative", "rotary", "alibi", "none"
]
PER_HEAD = ("relative", "alibi")  # heads are not alike under these
ROTARY_BASE = 10000.0


@dataclasses.dataclass(frozen=True)
class PositionOptions:
    """A scheme; `max_positions` is of learned ones, the others of relative ones."""

    scheme: Scheme = "sinusoidal"
    max_positions: int = 512
    num_buckets: int = 32
    max_distance: int = 128


@flax.struct.dataclass
class Terms:
    """What positions change within the attention of every layer of one pass.

    Attributes:
        angles: by which queries and the keys of the same places are turned, (B, T, K / 2).
        bias_BHTS: added to the scores. The B of both may be 1.
    """

    angles: Array | None = None
    bias_BHTS: Array | None = None

    def turn(self, x_BTHK: Array) -> Array:
        """Queries or keys, each pair of features (2i, 2i + 1) turned by its angle."""
        return x_BTHK if self.angles is None else rotate(x_BTHK, self.angles)


class Positions(nn.Module):
    """The scheme of one stack, with its parameters if it has any.

    Attributes:
        num_heads, head_dim: before any heads were removed.
        causal: whether queries see no later keys, so that no bucket is for those.
    """

    options: PositionOptions
    d_model: int
    num_heads: int
    head_dim: int
    causal: bool
    dtype: Any = jnp.float32

    def setup(self) -> None:
        options, init = self.options, nn.initializers.normal(self.d_model**-0.5)
        if options.scheme == "learned":
            named = nn.with_logical_partitioning(init, ("positions", "embed"))
            self.table = self.param("table", named, (options.max_positions, self.d_model))
        elif options.scheme == "relative":
            named = nn.with_logical_partitioning(init, ("positions", "heads"))
            self.table = self.param("table", named, (options.num_buckets, self.num_heads))

    def embed(self, x: Array, place: Array | None, length: int) -> Array:
        """Embeddings (..., D) with what the scheme adds at `place` (...).

        Args:
            place: positions, all below length; None: 0, 1, 2, ... along the axis before D.
        """
        scheme = self.options.scheme
        if scheme == "learned":
            table = self.table if place is not None else self.table[:length]
        elif scheme == "sinusoidal":
            table = sinusoidal_positions(length, self.d_model)
        elif scheme == "sinusoidal_halves":
            table = sinusoidal_positions(length, self.d_model)
            table = np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
        else:
            return x
        where = jnp.asarray(table, x.dtype)
        return x + (where if place is None else where[place])

    def terms(self, query_BT: Array, key_BS: Array) -> Terms:
        """What the scheme changes in attention from places query_BT to places key_BS."""
        scheme = self.options.scheme
        if scheme == "rotary":
            return Terms(angles=rotary_angles(query_BT, self.head_dim))
        if scheme not in PER_HEAD:
            return Terms()
        distance_BTS = key_BS[:, None, :] - query_BT[:, :, None]
        if scheme == "alibi":
            slopes_H11 = jnp.asarray(alibi_slopes(self.num_heads))[:, None, None]
            return Terms(bias_BHTS=-slopes_H11 * jnp.abs(distance_BTS)[:, None])
        furthest = self.options.max_distance
        bucket = relative_buckets(
            np.arange(-furthest, furthest + 1), self.causal, self.options.num_buckets, furthest
        )
        by_distance = self.table[bucket].T  # what is further falls into the last buckets too
        nearest_BTS = jnp.clip(distance_BTS, -furthest, furthest) + furthest
        return Terms(bias_BHTS=jnp.take(by_distance, nearest_BTS, axis=1).swapaxes(0, 1))


def sinusoidal_positions(length: int, d_model: int) -> np.ndarray:
    """Sines at even and cosines at odd features (Vaswani et al. 2017, 3.5): (length, d_model)."""
    rate = 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    angle = np.arange(length)[:, None] * rate[None, :]
    table = np.zeros((length, d_model), np.float32)
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)[:, : d_model // 2]
    return table


def rotary_angles(place_BT: Array, head_dim: int) -> Array:
    """place * 10000^(-2i / K) for i < K / 2 (Su et al. 2021, eq. 15): (B, T, K / 2)."""
    rate = ROTARY_BASE ** (-np.arange(0, head_dim, 2) / head_dim)
    return place_BT[:, :, None] * jnp.asarray(rate, jnp.float32)


def rotate(x_BTHK: Array, angles: Array) -> Array:
    """Turns each pair of features (2i, 2i + 1) by its angle (Su et al. 2021, eq. 34)."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    pairs = x_BTHK.reshape(*x_BTHK.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x_BTHK.shape).astype(x_BTHK.dtype)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """2^(-8 h / H) for h = 1 ... H (Press et al. 2022, section 3); where H is no power of two,
    those of the power below, then every other one of the power above, as in their code."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8 * np.arange(1, 2 * power + 1, 2) / (2 * power))
    return np.concatenate([slopes, between])[:num_heads].astype(np.float32)


def relative_buckets(
    distance: np.ndarray, causal: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each distance key - query (Raffel et al. 2020, 2.1, as in their code).

    Half of the buckets hold one distance each, from 0; the others grow by a constant factor up
    to max_distance, and the last holds all beyond. Unless causal, each direction has half of
    the buckets, the later keys the second half.
    """
    first = np.zeros_like(distance)
    if causal:
        distance = np.maximum(-distance, 0)
    else:
        num_buckets //= 2
        first = np.where(distance > 0, num_buckets, 0)
        distance = np.abs(distance)
    exact = num_buckets // 2
    # In float32 and in this order, as theirs: some distances stand on a border.
    ratio = np.maximum(distance, exact).astype(np.float32) / np.float32(exact)
    share = np.log(ratio) / np.float32(math.log(max_distance / exact))
    far = exact + (share * np.float32(num_buckets - exact)).astype(np.int64)
    return first + np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
