"""Scaled dot-product attention, as its equation says and as fused kernels compute it."""

import jax
import jax.numpy as jnp

from models.masks import Mask

Array = jax.Array


def dot_product_attention(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    mask: Mask,
    scale: float | None = None,
    bias_BHTS: Array | None = None,
) -> tuple[Array, Array]:
    """softmax(q k^T / sqrt(K) + bias) v (Vaswani et al. 2017, eq. 1).

    Args:
        q_BTHK: queries, already split into H heads.
        k_BSGK, v_BSGK: keys and values of G heads, where G divides H: each is looked at by
            H / G neighbouring heads (Ainslie et al. 2023).
        mask: what each query may look at.
        scale: of the products; 1 / sqrt(K) if None.
        bias_BHTS: added to the scaled products; axes of size 1 broadcast.

    Returns:
        (out_BTHK, weights_BHTS). A query that may look at nothing gets zeros.
    """
    # Products of matrices in this order, and not einsum, which may turn the second one round:
    # XLA's CPU backend then takes five times as long.
    scale = q_BTHK.shape[-1] ** -0.5 if scale is None else scale
    q_BHTK, (num_keys, num_groups) = q_BTHK.transpose(0, 2, 1, 3) * scale, k_BSGK.shape[1:3]
    scores_BGXS = _grouped(q_BHTK, num_groups) @ k_BSGK.transpose(0, 2, 3, 1)
    scores_BHTS = scores_BGXS.reshape(*q_BHTK.shape[:3], num_keys).astype(jnp.float32)
    if bias_BHTS is not None:
        scores_BHTS += bias_BHTS
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1, where=mask.dense()).astype(v_BSGK.dtype)
    out_BGXK = _grouped(weights_BHTS, num_groups) @ v_BSGK.transpose(0, 2, 1, 3)
    return out_BGXK.reshape(q_BHTK.shape).transpose(0, 2, 1, 3), weights_BHTS


def _grouped(x_BHTY: Array, num_groups: int) -> Array:
    """(B, G, X, Y): the rows of the heads that share a key one after another, X = H / G * T."""
    batch_size, num_heads, length, width = x_BHTY.shape
    if num_groups == num_heads:
        return x_BHTY
    return x_BHTY.reshape(batch_size, num_groups, num_heads // num_groups * length, width)


def fused_attention(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    mask: Mask,
    scale: float | None = None,
    bias_BHTS: Array | None = None,
) -> tuple[Array, None]:
    """The same values without the weights, by the fused kernel of the device if it has one.

    That is cuDNN's in bfloat16; elsewhere XLA compiles the equation. Where rows are one segment
    the kernel reads no mask and leaves out what comes later; other masks enter as a bias, that
    of prefixes with all that it says, others beside that rule.
    """
    has_bias = bias_BHTS is not None or not mask.one_segment
    if not _in_cudnn(q_BTHK, k_BSGK.shape[1], has_bias) or mask.only_BTS is not None:
        return dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask, scale, bias_BHTS)[0], None
    dense_B1TS = None if mask.one_segment else mask.dense()
    if bias_BHTS is not None:
        bias_BHTS = bias_BHTS.astype(q_BTHK.dtype)
    out_BTHK = jax.nn.dot_product_attention(
        q_BTHK,
        k_BSGK,
        v_BSGK,
        bias=bias_BHTS,
        mask=dense_B1TS,
        scale=scale,
        is_causal=mask.causal and mask.query_prefix_BT is None,  # a rule beside the mask
        implementation="cudnn",
    )
    if dense_B1TS is None:
        return out_BTHK, None
    # A row that sees nothing is the mean of the values there, and zero by our contract.
    sees_BT11 = dense_B1TS.any(-1).transpose(0, 2, 1)[..., None]
    return jnp.where(sees_BT11, out_BTHK, 0), None


def _in_cudnn(q_BTHK: Array, num_keys: int, has_bias: bool) -> bool:
    """Whether cuDNN's kernel takes such queries; with a bias it wants even lengths."""
    if jax.default_backend() != "gpu" or q_BTHK.dtype != jnp.bfloat16:
        return False
    capability = getattr(jax.local_devices()[0], "compute_capability", "")
    major, _, length, width = capability.split(".")[0], *q_BTHK.shape[:2], q_BTHK.shape[-1]
    even = length % 2 == 0 and num_keys % 2 == 0
    fits = width % 8 == 0 and width <= 128 and (even or not has_bias)
    return fits and major.isdigit() and int(major) >= 8
