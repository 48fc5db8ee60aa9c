"""Multi-head attention around any mechanism, with its weights and a mask of heads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.ablation import ablate, ablation_of, record
from models.attention.dot_product import dot_product_attention
from models.attention.positions import Terms
from models.layers import Dense
from models.masks import Mask

Array = jax.Array
NOTHING = Terms()


class MultiHeadAttention(nn.Module):
    """Projects to heads, attends, projects back (Vaswani et al. 2017, 3.2.2).

    The weights are sown under 'intermediates'; models/attention/ablation.py says how heads are
    removed.

    Attributes:
        num_kv_heads: heads of keys and values, each for num_heads / num_kv_heads queries
            (Shazeer 2019; Ainslie et al. 2023); 0: one for each.
        scaled: products are divided by sqrt(K); else the queries begin smaller by that.
    """

    num_heads: int
    head_dim: int
    d_model: int
    attend: Callable = dot_product_attention
    dtype: Any = jnp.float32
    num_kv_heads: int = 0
    use_bias: bool = True
    scaled: bool = True

    def setup(self) -> None:
        def split(num_heads: int, axis: str, gain: float = 1.0) -> Dense:
            return Dense(
                (num_heads, self.head_dim),
                ("embed", axis, "kv"),
                use_bias=self.use_bias,
                kernel_init=nn.initializers.variance_scaling(gain, "fan_avg", "uniform"),
                dtype=self.dtype,
            )

        num_kv_heads = self.num_kv_heads or self.num_heads
        axis = "heads" if num_kv_heads == self.num_heads else "kv_heads"
        self.query = split(self.num_heads, "heads", 1.0 if self.scaled else 1 / self.head_dim)
        self.key, self.value = split(num_kv_heads, axis), split(num_kv_heads, axis)
        self.out = Dense(
            (self.d_model,),
            ("heads", "kv", "embed"),
            num_in=2,
            use_bias=self.use_bias,
            dtype=self.dtype,
        )

    def keys_values(self, y_BSD: Array, terms: Terms = NOTHING) -> tuple[Array, Array]:
        """(k_BSGK, v_BSGK) of the G heads of keys and values: what a step keeps of the
        sequence that is looked at."""
        return terms.turn(self.key(y_BSD)), self.value(y_BSD)

    def __call__(
        self,
        x_BTD: Array,
        keys_values: tuple[Array, Array],
        mask: Mask,
        terms: Terms = NOTHING,
    ) -> Array:
        """Looks from x_BTD at keys and values; returns (B, T, d_model)."""
        k_BSGK, v_BSGK = keys_values
        recording = self.is_mutable_collection("intermediates")
        attend = dot_product_attention if recording else self.attend
        q_BTHK, scale = terms.turn(self.query(x_BTD)), None if self.scaled else 1.0
        out_BTHK, weights_BHTS = attend(q_BTHK, k_BSGK, v_BSGK, mask, scale, terms.bias_BHTS)
        if recording:
            self.sow("intermediates", "weights", weights_BHTS)
        record(self, out_BTHK)
        return self.out(ablate(out_BTHK, ablation_of(self)))
