"""Several scaled dot products side by side, each with its share of the values."""

import jax
import jax.numpy as jnp

from models.attention.scores.base import Arrays, Linear, Score, ScoreOptions, matrix
from models.layers import Dense
from registry import ConfigError

Array = jax.Array


class MultiHead(Score):
    """score_i = (W_i s)^T (U_i h) / sqrt(K), context_i = sum of weights_i V_i h
    (Vaswani et al. 2017, 3.2.2).

    The contexts stand side by side. The last product of the paper is left to whatever
    reads the context, which begins with a product of its own.
    """

    def setup(self) -> None:
        if self.values_size % self.options.num_heads:
            raise ConfigError(
                f"config.model.num_heads must divide the width of the encoder's output, "
                f"{self.values_size}, got {self.options.num_heads}."
            )
        size = self.context_size(self.values_size, self.options)

        def project() -> Dense:
            return Dense((size,), ("embed", "heads"), use_bias=False, dtype=self.dtype)

        self.key, self.value = project(), project()
        self.query = matrix(self, "query", ("hidden", "heads"), (self.query_size, size))

    @classmethod
    def context_size(cls, values_size: int, options: ScoreOptions) -> int:
        heads = options.num_heads
        return values_size // heads * (options.heads_kept or heads)

    def memory(self, keys_BSD: Array, values_BSD: Array) -> Arrays:
        heads = self.options.heads_kept or self.options.num_heads
        keys_BSHK = self.key(keys_BSD).reshape(*keys_BSD.shape[:2], heads, -1)
        keys_BSHK = keys_BSHK * keys_BSHK.shape[-1] ** -0.5
        return {"keys": keys_BSHK, "values": self.value(values_BSD)}

    def weights(self) -> Arrays:
        return {"query": self.query.astype(self.dtype)}

    @classmethod
    def scores(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        keys_BSHK = shared["keys"]
        query_BHK = linear("query", query_BQ).reshape(-1, *keys_BSHK.shape[2:])
        return jnp.einsum("bhk,bshk->bhs", query_BHK, keys_BSHK)
