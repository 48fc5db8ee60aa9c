"""What every score of a recurrent decoder is: parameters, and one pure function of a step.

A step compares one query a row with all keys of that row. What does not depend on the
query is computed once, in `memory`; what does is in the class methods, which close over no
arrays and multiply through `linear`, so that `models/recurrent/scan.py` can run them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Arrays = dict[str, Array]
Linear = Callable[[str, Array], Array]


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What the options of a model say to its score.

    Attributes:
        num_heads: of multi_head.
        heads_kept: how many of these are left, each as wide as before; 0: all.
        window_radius: D of local_m and local_p: 2 D + 1 positions are seen.
        max_positions: source positions that location has a weight for.
    """

    num_heads: int = 1
    heads_kept: int = 0
    window_radius: int = 10
    max_positions: int = 256


class Score(nn.Module):
    """Turns a query and the keys of the source into weights over it.

    Attributes:
        query_size, keys_size, values_size: widths of the decoder's state and of the two
            sequences of the source.
    """

    query_size: int
    keys_size: int
    values_size: int
    options: ScoreOptions = ScoreOptions()
    dtype: Any = jnp.float32

    @classmethod
    def context_size(cls, values_size: int, options: ScoreOptions) -> int:
        """The width of the context, all heads side by side."""
        return values_size

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        """What no query changes: at least "values" (B, S, values_size), batch first."""
        return {"values": values_BSD}

    def weights(self) -> Arrays:
        """The matrices of `linear`, by name."""
        return {}

    def shared(self) -> Arrays:
        """Vectors and numbers that every step reads."""
        return {}

    @classmethod
    def init_state(cls, valid_BS: Array, dtype: Any) -> Arrays:
        """What one step leaves for the next, before the first; empty for most."""
        return {}

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        """How well each key fits the query, (B, H, S), before the softmax.

        Args:
            linear: linear(name, h) is h times a matrix of `weights`, once for each name.
            shared: `memory`, `shared` and "valid" (B, S), above 0 where the source has a token.
            state: as `init_state` made it and `advance` has changed it.
            query_BQ: a state of the decoder.
        """
        raise NotImplementedError

    @classmethod
    def normalise(cls, scores_BHS: Array, shared: Arrays, place: Any) -> Array:
        """Weights by a softmax over the tokens of the source; zeros where it has none."""
        valid_B1S = (shared["valid"] > 0)[:, None]
        return jax.nn.softmax(wide(scores_BHS), axis=-1, where=valid_B1S)

    @classmethod
    def place(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Any:
        """Where in the source to look, for scores that have a window."""
        return None

    @classmethod
    def advance(cls, state: Arrays, weights_BHS: Array) -> Arrays:
        """The state after a step that gave these weights."""
        return state

    @classmethod
    def attend(
        cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array
    ) -> tuple[Array, Array, Arrays]:
        """(context_BHK, weights_BHS, new state); heads divide the values among themselves."""
        scores_BHS = cls.scores(linear, shared, state, query_BQ)
        place = cls.place(linear, shared, state, query_BQ)
        weights_BHS = cls.normalise(scores_BHS, shared, place)
        values_BSD = shared["values"]
        state = cls.advance(state, weights_BHS)
        weights_BHS = weights_BHS.astype(values_BSD.dtype)
        values_BSHK = values_BSD.reshape(*values_BSD.shape[:2], weights_BHS.shape[1], -1)
        return jnp.einsum("bhs,bshk->bhk", weights_BHS, values_BSHK), weights_BHS, state


def wide(x: Array) -> Array:
    """At least float32, for sums and exponentials."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def matrix(module: nn.Module, name: str, axes: tuple[str, str], shape: tuple[int, int]) -> Array:
    """A matrix for `linear`, in the type of the computation."""
    init = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), axes)
    return module.param(name, init, shape, jnp.float32)


def vector(module: nn.Module, name: str, axis: str, size: int) -> Array:
    """A vector whose product with `size` numbers of variance 1 has variance 1."""
    init = nn.with_logical_partitioning(nn.initializers.normal(size**-0.5), (axis,))
    return module.param(name, init, (size,), jnp.float32)
