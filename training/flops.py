"""Model FLOPs, counted from the program and not from a formula of one architecture."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax


def forward_flops(function: Callable, *args: Any) -> int:
    """FLOPs of the matrix products of function(*args), 2 for a multiply-add.

    Counts every dot product and convolution, the bodies of scans as often as they run, and
    loops of unknown length once. Arguments may be jax.ShapeDtypeStruct; nothing is computed.
    """
    return flops_by_scope(function, *args).total()


def training_flops(loss: Callable, *args: Any) -> int:
    """Three times the forward pass: the backward pass has two products for each of its own.

    Recomputation is not counted (Chowdhery et al. 2022, "model FLOPs"), so that utilisation
    compares programs that recompute with those that do not.
    """
    return 3 * forward_flops(loss, *args)


def flops_by_scope(function: Callable, *args: Any) -> Counter[str]:
    """The same by the scope in which each product stands, such as the path of its module."""
    found: Counter[str] = Counter()
    _count(jax.make_jaxpr(function)(*args).jaxpr, "", 1, found)
    return found


def _count(jaxpr: Any, scope: str, times: int, found: Counter[str]) -> None:
    for equation in jaxpr.eqns:
        _count_equation(equation, scope, times, found)


def _count_equation(equation: Any, scope: str, times: int, found: Counter[str]) -> None:
    name = equation.primitive.name
    scope = f"{scope}/{equation.source_info.name_stack}"
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        each = 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        found[scope] += times * each
        return
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        out_features = equation.params["dimension_numbers"].rhs_spec[0]
        each = kernel.size // kernel.shape[out_features]
        found[scope] += times * 2 * equation.outvars[0].aval.size * each
        return
    if name in KERNELS:
        found[scope] += times * KERNELS[name](equation)
        return
    inner = _inner(equation.params)
    if name == "cond":
        branches: list[Counter[str]] = [Counter() for _ in inner]
        for jaxpr, branch in zip(inner, branches, strict=True):
            _count(jaxpr, scope, times, branch)
        found.update(max(branches, key=lambda branch: sum(branch.values()), default={}))
        return
    if name in ("custom_vjp_call", "custom_jvp_call"):
        inner = inner[:1]
    for jaxpr in inner:
        _count(jaxpr, scope, times * (equation.params["length"] if name == "scan" else 1), found)


def _of_cudnn_attention(equation: Any) -> int:
    """Both products of attention over q (B, T, H, K) and k (B, S, G, K)."""
    query, key = (variable.aval.shape for variable in equation.invars[:2])
    return 4 * math.prod(query) * key[1]


def _of_cudnn_lstm(equation: Any) -> int:
    """Both products of one layer, in one direction, over (B, T, D)."""
    rows, length, width = equation.invars[0].aval.shape
    hidden = equation.params["hidden_size"]
    return 2 * rows * length * 4 * hidden * (width + hidden)


# What cuDNN computes by kernels of its own, by the name of JAX's primitive.
KERNELS = {
    "dot_product_attention_fwd_wrapper": _of_cudnn_attention,
    "rnn_fwd": _of_cudnn_lstm,
}


def _inner(params: dict[str, Any]) -> list[Any]:
    """The programs among an equation's parameters."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                found.append(one)
    return found
