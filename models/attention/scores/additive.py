"""Scores by a small network over both states: with a hidden layer, with coverage, without."""

from typing import Any

import jax
import jax.numpy as jnp

from models.attention.scores.base import Arrays, Linear, Score, matrix, vector, wide
from models.layers import Dense

Array = jax.Array


class Additive(Score):
    """score(s, h) = v^T tanh(W s + U h + b) (Bahdanau et al. 2015, appendix A.1.2).

    Luong's "concat" (2015, eq. 8), v^T tanh(W [s; h]), is the same function: W over both
    states is one matrix for each of them, side by side. Both names mean this class.
    """

    def setup(self) -> None:
        width = self.query_size
        self.key = Dense((width,), ("embed", "hidden"), dtype=self.dtype)
        self.query = matrix(self, "query", ("hidden", "mlp"), (width, width))
        self.v = vector(self, "v", "mlp", width)

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        return {"keys": self.key(keys_BSD), "values": values_BSD}

    def weights(self) -> Arrays:
        return {"query": self.query.astype(self.dtype)}

    def shared(self) -> Arrays:
        return {"v": self.v.astype(self.dtype)}

    @classmethod
    def hidden(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        """What stands inside the tanh, (B, S, A)."""
        return shared["keys"] + linear("query", query_BQ)[:, None]

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        hidden_BSA = jnp.tanh(cls.hidden(linear, shared, state, query_BQ))
        return (hidden_BSA @ shared["v"])[:, None]


class CoveredAdditive(Additive):
    """score = v^T tanh(W s + U h + w c + b), c what this position has had of all weights so far.

    The coverage vector c_t = sum of a_t' over t' < t (See et al. 2017, eq. 10 and 11; Tu et
    al. 2016 call it linguistic coverage without fertility). Its state follows a hypothesis.
    """

    def setup(self) -> None:
        super().setup()
        self.coverage = vector(self, "coverage", "mlp", self.query_size)

    def shared(self) -> Arrays:
        return {**super().shared(), "coverage": self.coverage.astype(self.dtype)}

    @classmethod
    def init_state(cls, valid_BS: Array, dtype: Any) -> Arrays:
        return {"covered": wide(jnp.zeros(valid_BS.shape, dtype))}

    @classmethod
    def hidden(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        covered_BS1 = state["covered"].astype(shared["coverage"].dtype)[:, :, None]
        return super().hidden(linear, shared, state, query_BQ) + covered_BS1 * shared["coverage"]

    @classmethod
    def advance(cls, state: Arrays, weights_BHS: Array) -> Arrays:
        return {"covered": state["covered"] + weights_BHS.sum(1)}


class OneLayer(Score):
    """score(s, h) = w^T [s; h] + b: one layer with a single output and no hidden one.

    What it adds for s is the same at all positions, and the softmax takes it away: the
    weights depend on the source alone, and w_s and b have no gradient. That is why
    `additive` has a hidden layer.
    """

    def setup(self) -> None:
        self.key = Dense((1,), ("embed", "heads"), dtype=self.dtype)
        self.query = matrix(self, "query", ("hidden", "heads"), (self.query_size, 1))

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        return {"keys": self.key(keys_BSD)[..., 0], "values": values_BSD}

    def weights(self) -> Arrays:
        return {"query": self.query.astype(self.dtype)}

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        return (shared["keys"] + linear("query", query_BQ))[:, None]
