"""Scores that are products of the query with a key (Luong et al. 2015, eq. 8)."""

import jax
import jax.numpy as jnp

from models.attention.scores.base import Arrays, Linear, Score
from models.layers import Dense
from registry import ConfigError

Array = jax.Array


class Dot(Score):
    """score(s, h) = s^T h (Luong et al. 2015, "dot").

    Both must have one width. Keys that are n times as wide, as those of both directions
    of an encoder, are the sum of their n parts: there is nothing here to learn.
    """

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        """Keys as wide as the query, times the scale."""
        if self.keys_size % self.query_size:
            raise ConfigError(
                f"config.model.attention: a dot product needs keys of {self.query_size} or a "
                f"multiple, as wide as the decoder; the encoder gives {self.keys_size}."
            )
        parts_BSNQ = keys_BSD.reshape(*keys_BSD.shape[:2], -1, self.query_size)
        return {"keys": parts_BSNQ.sum(2) * self._scale(), "values": values_BSD}

    def _scale(self) -> float:
        return 1.0

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        return jnp.einsum("bq,bsq->bs", query_BQ, shared["keys"])[:, None]


class ScaledDot(Dot):
    """score(s, h) = s^T h / sqrt(d), d the width of s (Vaswani et al. 2017, eq. 1)."""

    def _scale(self) -> float:
        return self.query_size**-0.5


class General(Dot):
    """score(s, h) = s^T W h (Luong et al. 2015, "general"); W h is computed once."""

    def setup(self) -> None:
        axes = ("embed", "hidden")
        self.key = Dense((self.query_size,), axes, use_bias=False, dtype=self.dtype)

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        return {"keys": self.key(keys_BSD), "values": values_BSD}
