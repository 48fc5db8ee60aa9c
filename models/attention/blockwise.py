"""Exact attention that holds the scores of a few queries at a time."""

import dataclasses

import jax
import jax.numpy as jnp

from models.attention.dot_product import dot_product_attention
from models.masks import Mask

Array = jax.Array

BLOCK = 128  # queries whose scores are held at once, unless a model says otherwise


def blockwise_attention(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    mask: Mask,
    scale: float | None = None,
    bias_BHTS: Array | None = None,
    block: int = BLOCK,
) -> tuple[Array, None]:
    """The values of `dot_product_attention` without its weights (Rabe & Staats 2021, section 3).

    Queries do not depend on each other, so blocks of them go one after another, and the backward
    pass computes the scores of a block again: memory for block * S scores a head instead of T * S,
    at the price of one more product of queries and keys. A bias is held whole.

    Args:
        block: queries whose scores are held at once; others as of `dot_product_attention`.
    """
    length = q_BTHK.shape[1]
    if length <= block:
        return dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask, scale, bias_BHTS)[0], None

    @jax.checkpoint
    def of_block(queries: tuple[Array | None, ...]) -> Array:
        q_BTHK, bias_BHTS, segments_BT, positions_BT, only_BTS, prefix_BT = queries
        part = dataclasses.replace(
            mask,
            query_segments_BT=segments_BT,
            query_positions_BT=positions_BT,
            only_BTS=only_BTS,
            query_prefix_BT=prefix_BT,
            one_segment=False,
        )
        return dot_product_attention(q_BTHK, k_BSGK, v_BSGK, part, scale, bias_BHTS)[0]

    if bias_BHTS is not None:
        shape = (*bias_BHTS.shape[:2], length, bias_BHTS.shape[3])
        bias_BHTS = _cut(jnp.broadcast_to(bias_BHTS, shape), 2, block)
    # A query that fills up the last block has segment 0: it sees nothing.
    places = mask.query_segments_BT, mask.query_positions_BT, mask.only_BTS, mask.query_prefix_BT
    queries = q_BTHK, *places
    q_NBTHK, *seen = [None if x is None else _cut(x, 1, block) for x in queries]
    out_NBTHK = jax.lax.map(of_block, (q_NBTHK, bias_BHTS, *seen))
    out_BNTHK = out_NBTHK.swapaxes(0, 1)
    out_BTHK = out_BNTHK.reshape(len(q_BTHK), len(out_NBTHK) * block, *q_BTHK.shape[2:])
    return out_BTHK[:, :length], None


def _cut(x: Array, axis: int, size: int) -> Array:
    """Blocks of an axis, along a new first one; the last is filled up with zeros."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -x.shape[axis] % size)
    x = jnp.pad(x, padding)
    number = x.shape[axis] // size  # and not -1, which a layer without heads leaves open
    blocks = x.reshape(*x.shape[:axis], number, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(blocks, axis, 0)
