"""Whether the fast paths of a GPU compute what the plain ones do, in values and gradients.

Attention: cuDNN's kernel in bfloat16 against the equation in float32, under each kind of mask and
with a bias. Recurrence: cuDNN's LSTM against the scan, both in float32 without TF32. The difference
is the largest one over the largest value of the plain path. On other devices both are one path.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import dot_product_attention, fused_attention
from models.masks import Mask, cross_mask, self_mask, whole_mask
from models.recurrent.layer import BidirectionalLayer
from models.recurrent.options import CellOptions

Array = jax.Array
# bfloat16 has 8 bits: each of a few products rounds by 2^-9. Without TF32 only the order differs.
TOLERANCES = {"attention": 3e-2, "LSTM": 1e-4}


def difference(fast: Any, plain: Any) -> float:
    """The largest difference of any array over its largest value."""

    def of(one: Array, other: Array) -> Array:
        one, other = one.astype(jnp.float32), other.astype(jnp.float32)
        return jnp.abs(one - other).max() / jnp.abs(other).max()

    return float(max(jax.tree.leaves(jax.tree.map(of, fast, plain))))


def attention_cases(rows: int, length: int) -> Mapping[str, tuple[Mask, bool]]:
    """Masks, and whether a bias goes with them."""
    tokens_BT = jnp.zeros((rows, length), jnp.int32)
    packed_BT = jnp.broadcast_to(1 + (jnp.arange(length) >= length // 3), tokens_BT.shape)
    padded_BT = (jnp.arange(length) < length - length // 4).astype(jnp.int32)
    padded_BT = jnp.broadcast_to(padded_BT, tokens_BT.shape)
    prefix_BT = jnp.broadcast_to(jnp.arange(length) % (length // 3) < length // 9, tokens_BT.shape)
    return {
        "causal": (whole_mask(tokens_BT, causal=True), False),
        "both ways": (whole_mask(tokens_BT, causal=False), False),
        "packed, causal": (self_mask(packed_BT, causal=True), False),
        "packed, with prefixes": (self_mask(packed_BT, True, prefix_BT), False),
        "to a padded source": (cross_mask(padded_BT, length), False),
        "causal with a bias": (whole_mask(tokens_BT, causal=True), True),
        "padded with a bias": (cross_mask(padded_BT, length), True),
    }


def attention(mask: Mask, has_bias: bool, shape: tuple[int, int, int, int]) -> float:
    """Fused in bfloat16 against the equation in float32; shape is (B, T, H, K)."""
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v, weights = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys[:4])
    bias = jax.random.normal(keys[4], (1, shape[2], shape[1], shape[1])) if has_bias else None

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def values_and_gradients(attend: Callable, dtype: Any, *args: Any) -> Any:
        def total(q: Array, k: Array, v: Array, bias: Array | None) -> tuple[Array, Array]:
            parts = (x.astype(dtype) for x in (q, k, v))
            out = attend(*parts, mask, None, bias)[0].astype(jnp.float32)
            return (out * weights).sum(), out

        grads, out = jax.grad(total, (0, 1, 2, 3) if has_bias else (0, 1, 2), has_aux=True)(*args)
        return out, grads

    args = (q, k, v, bias)
    with jax.default_matmul_precision("highest"):
        plain = values_and_gradients(dot_product_attention, jnp.float32, *args)
    return difference(values_and_gradients(fused_attention, jnp.bfloat16, *args), plain)


def lstm(kernel: str, shape: tuple[int, int, int]) -> float:
    """A bidirectional layer by a kernel against the scan; shape is (T, B, D = H)."""
    x_TBD = jax.random.normal(jax.random.key(0), shape)
    lengths_B = shape[0] - jnp.arange(shape[1]) % (shape[0] // 2)
    valid_TB = jnp.arange(shape[0])[:, None] < lengths_B

    def layer(kernel: str) -> nn.Module:
        return BidirectionalLayer(shape[2], CellOptions(kernel=kernel))  # type: ignore[arg-type]

    variables = nn.meta.unbox(layer("scan").init(jax.random.key(1), x_TBD, valid_TB))

    @functools.partial(jax.jit, static_argnums=0)
    def values_and_gradients(kernel: str, variables: Any, x_TBD: Array) -> Any:
        def total(variables: Any, x_TBD: Array) -> tuple[Array, Array]:
            _, y_TBH = layer(kernel).apply(variables, x_TBD, valid_TB)
            y_TBH = jnp.where(valid_TB[..., None], y_TBH, 0)
            return jnp.sin(y_TBH).sum(), y_TBH

        grads, y_TBH = jax.grad(total, (0, 1), has_aux=True)(variables, x_TBD)
        return y_TBH, grads

    with jax.default_matmul_precision("highest"):
        fast, plain = (values_and_gradients(name, variables, x_TBD) for name in (kernel, "scan"))
    return difference(fast, plain)


def measure(tiny: bool) -> tuple[list[dict], list[str]]:
    """Rows with the difference as a share of what is tolerated, and notes."""
    shape = (2, 8, 2, 8) if tiny else (4, 512, 12, 64)
    found = {
        f"attention, {name}": attention(*case, shape)
        for name, case in attention_cases(*shape[:2]).items()
    }
    kernel = "cudnn" if jax.default_backend() == "gpu" else "scan"
    found[f"LSTM, {kernel}"] = lstm(kernel, (6, 3, 8) if tiny else (32, 64, 1024))
    rows = []
    for name, error in found.items():
        tolerance = TOLERANCES[name.split(",")[0]]
        columns = {"difference": f"{error:.1e}", "tolerated": f"{tolerance:g}"}
        row = {"what": f"parity: {name}", "columns": columns, "value": error / tolerance}
        rows.append(row | {"goal": 1.0, "at_most": True, "unit": ""})
    return rows, ["result: difference over what is tolerated"]
