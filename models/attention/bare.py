"""Dot products without projections, recorded and maskable like all attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.ablation import ablate, ablation_of, record
from models.attention.dot_product import dot_product_attention
from models.masks import cross_mask

Array = jax.Array


class BareAttention(nn.Module):
    """softmax(q k^T) v over what all hypotheses of a row share; it has no parameters.

    The weights are sown as (B, 1, T, S) under 'intermediates', and the result is that of one
    head (models/attention/ablation.py).

    Attributes:
        linear: leaves the softmax out, (q k^T) v (Sukhbaatar et al. 2015, 4.2).
    """

    linear: bool = False

    @nn.compact
    def __call__(
        self, query_RTD: Array, keys_BSD: Array, values_BSD: Array, segments_BS: Array
    ) -> Array:
        """R is B, or B times the hypotheses of a row, side by side; returns (R, T, D)."""
        query_BTD = query_RTD.reshape(keys_BSD.shape[0], -1, query_RTD.shape[-1])
        mask = cross_mask(segments_BS, query_BTD.shape[1])
        q_BTHD, k_BSHD, v_BSHD = (x[:, :, None] for x in (query_BTD, keys_BSD, values_BSD))
        if self.linear:
            scores_BHTS = jnp.einsum("bthd,bshd->bhts", q_BTHD, k_BSHD)
            weights_BHTS = jnp.where(mask.dense(), scores_BHTS, 0)
            out_BTHD = jnp.einsum("bhts,bshd->bthd", weights_BHTS, v_BSHD)
        else:
            out_BTHD, weights_BHTS = dot_product_attention(q_BTHD, k_BSHD, v_BSHD, mask, scale=1.0)
        self.sow("intermediates", "weights", weights_BHTS)
        record(self, out_BTHD)
        return ablate(out_BTHD, ablation_of(self)).reshape(query_RTD.shape)
