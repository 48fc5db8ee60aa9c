"""Attention mechanisms are values:
(q_BTHK, k_BSGK, v_BSGK, mask, scale, bias_BHTS) -> (out_BTHK, weights_BHTS).

dot_product.py says what they are, and that scale and bias may be None. A new one is a file
here and a line in MECHANISMS. A mechanism that returns None for its weights names no fallback:
where weights are recorded, `dot_product` runs instead.
"""

import functools
from collections.abc import Callable

from models.attention.bare import BareAttention
from models.attention.blockwise import blockwise_attention
from models.attention.dot_product import dot_product_attention, fused_attention
from models.attention.multi_head import MultiHeadAttention

MECHANISMS = {
    "dot_product": dot_product_attention,
    "fused": fused_attention,
    "blockwise": blockwise_attention,
}


def mechanism(name: str, block: int) -> Callable:
    """The mechanism of a name; `block` is for the one that goes by blocks of queries."""
    found = MECHANISMS[name]
    return functools.partial(found, block=block) if found is blockwise_attention else found


__all__ = [
    "MECHANISMS",
    "BareAttention",
    "MultiHeadAttention",
    "blockwise_attention",
    "dot_product_attention",
    "fused_attention",
    "mechanism",
]
