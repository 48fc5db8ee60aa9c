"""Scaled dot-product attention, as its equation says and as fused kernels compute it."""

import jax
import jax.numpy as jnp

from models.masks import Mask

Array = jax.Array


def dot_product_attention(
    q_BTHK: Array, k_BSHK: Array, v_BSHK: Array, mask: Mask, scale: float | None = None
) -> tuple[Array, Array]:
    """softmax(q k^T / sqrt(K)) v (Vaswani et al. 2017, eq. 1).

    Args:
        q_BTHK, k_BSHK, v_BSHK: queries, keys and values, already split into heads.
        mask: what each query may look at.
        scale: of the products; 1 / sqrt(K) if None.

    Returns:
        (out_BTHK, weights_BHTS). A query that may look at nothing gets zeros.
    """
    # Products of matrices in this order, and not einsum, which may turn the second one round:
    # XLA's CPU backend then takes five times as long.
    scale = q_BTHK.shape[-1] ** -0.5 if scale is None else scale
    q_BHTK = q_BTHK.transpose(0, 2, 1, 3) * scale
    scores_BHTS = (q_BHTK @ k_BSHK.transpose(0, 2, 3, 1)).astype(jnp.float32)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1, where=mask.dense()).astype(v_BSHK.dtype)
    out_BHTK = weights_BHTS @ v_BSHK.transpose(0, 2, 1, 3)
    return out_BHTK.transpose(0, 2, 1, 3), weights_BHTS


def fused_attention(q_BTHK: Array, k_BSHK: Array, v_BSHK: Array, mask: Mask) -> tuple[Array, None]:
    """The same values without the weights, by the fused kernel of the device if it has one.

    cuDNN's kernel needs bfloat16 on a GPU; elsewhere XLA compiles the equation.
    """
    if jax.default_backend() != "gpu" or q_BTHK.dtype != jnp.bfloat16:
        return dot_product_attention(q_BTHK, k_BSHK, v_BSHK, mask)[0], None
    dense_B1TS = mask.dense()
    out_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=dense_B1TS, implementation="cudnn"
    )
    # A row that sees nothing is the mean of the values there, and zero by our contract.
    sees_BT11 = dense_B1TS.any(-1).transpose(0, 2, 1)[..., None]
    return jnp.where(sees_BT11, out_BTHK, 0), None
