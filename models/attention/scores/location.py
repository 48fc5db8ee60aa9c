"""Scores of positions: the query alone says where to look."""

import jax
import jax.numpy as jnp

from models.attention.scores.base import Arrays, Linear, Score, matrix

Array = jax.Array


class Location(Score):
    """weights = softmax(W s) (Luong et al. 2015, eq. 9), one row of W for each position.

    Short sources use the first rows; of longer ones than max_positions, the words beyond
    are not seen.
    """

    def setup(self) -> None:
        shape = (self.query_size, self.options.max_positions)
        self.query = matrix(self, "query", ("hidden", "length"), shape)

    def weights(self) -> Arrays:
        return {"query": self.query.astype(self.dtype)}

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        scores_BS = linear("query", query_BQ)[:, : shared["valid"].shape[1]]
        beyond = shared["valid"].shape[1] - scores_BS.shape[1]
        return jnp.pad(scores_BS, ((0, 0), (0, beyond)), constant_values=-jnp.inf)[:, None]
