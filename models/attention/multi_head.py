"""Multi-head attention around any mechanism, with its weights and a mask of heads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.dot_product import dot_product_attention
from models.layers import Dense
from models.masks import Mask

Array = jax.Array


class MultiHeadAttention(nn.Module):
    """Projects to heads, attends, projects back (Vaswani et al. 2017, 3.2.2).

    The weights are sown under 'intermediates'. Heads are scaled by the variable
    head_mask_H of collection 'ablation' if the caller gives one: 0 removes a head.
    """

    num_heads: int
    d_model: int
    attend: Callable = dot_product_attention
    dtype: Any = jnp.float32

    def setup(self) -> None:
        heads = (self.num_heads, self.d_model // self.num_heads)

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
        if self.has_variable("ablation", "head_mask"):
            head_mask_H = self.get_variable("ablation", "head_mask")
            out_BTHK = out_BTHK * head_mask_H[:, None].astype(out_BTHK.dtype)
        return self.out(out_BTHK)
