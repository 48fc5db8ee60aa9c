"""Attention mechanisms are values:
(q_BTHK, k_BSGK, v_BSGK, mask, scale, bias_BHTS) -> (out_BTHK, weights_BHTS).

dot_product.py says what they are, and that scale and bias may be None. A new one is a file
here and a line in MECHANISMS. A mechanism that returns None for its weights names no fallback:
where weights are recorded, `dot_product` runs instead.
"""

from models.attention.bare import BareAttention
from models.attention.dot_product import dot_product_attention, fused_attention
from models.attention.multi_head import MultiHeadAttention

MECHANISMS = {"dot_product": dot_product_attention, "fused": fused_attention}

__all__ = [
    "MECHANISMS",
    "BareAttention",
    "MultiHeadAttention",
    "dot_product_attention",
    "fused_attention",
]
