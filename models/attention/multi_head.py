"""Multi-head attention around any mechanism, with its weights and a mask of heads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.ablation import ablate, ablation_of, record
from models.attention.dot_product import dot_product_attention
from models.layers import Dense
from models.masks import Mask

Array = jax.Array


class MultiHeadAttention(nn.Module):
    """Projects to heads, attends, projects back (Vaswani et al. 2017, 3.2.2).

    The weights are sown under 'intermediates'; models/attention/ablation.py says how heads are
    removed.
    """

    num_heads: int
    head_dim: int
    d_model: int
    attend: Callable = dot_product_attention
    dtype: Any = jnp.float32

    def setup(self) -> None:
        heads = (self.num_heads, self.head_dim)

        def split() -> Dense:
            return Dense(heads, ("embed", "heads", "kv"), dtype=self.dtype)

        self.query, self.key, self.value = split(), split(), split()
        self.out = Dense((self.d_model,), ("heads", "kv", "embed"), num_in=2, dtype=self.dtype)

    def keys_values(self, y_BSD: Array) -> tuple[Array, Array]:
        """(k_BSHK, v_BSHK): what a step keeps of the sequence that is looked at."""
        return self.key(y_BSD), self.value(y_BSD)

    def __call__(self, x_BTD: Array, keys_values: tuple[Array, Array], mask: Mask) -> Array:
        """Looks from x_BTD at keys and values; returns (B, T, d_model)."""
        k_BSHK, v_BSHK = keys_values
        recording = self.is_mutable_collection("intermediates")
        attend = dot_product_attention if recording else self.attend
        out_BTHK, weights_BHTS = attend(self.query(x_BTD), k_BSHK, v_BSHK, mask)
        if recording:
            self.sow("intermediates", "weights", weights_BHTS)
        record(self, out_BTHK)
        return self.out(ablate(out_BTHK, ablation_of(self)))
