"""Norms of a tree of parameters, layer by layer.

A layer is everything below the first name that ends in a number (decoder/layers_1), or below
the first name at all (embed). Layers stacked under a scan (decoder/layers, with the layer as
the leading axis) count as if they stood side by side.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

MEASURED = ("gradient", "update", "weight")
STACKED = "layers"  # models/transformer/stack.py
NUMBERED = re.compile(r"(.*)_(\d+)")


def _layer_names(path: Any, shape: tuple[int, ...]) -> list[str]:
    """The layer of a parameter; all of them where they are stacked."""
    parts = [str(key.key) for key in path]
    for i, part in enumerate(parts[:-1]):
        name = "/".join(parts[: i + 1])
        if part == STACKED:
            return [f"{name}_{n}" for n in range(shape[0])]
        if NUMBERED.fullmatch(part):
            return [name]
    return parts[:1]


def layer_names(params: Any) -> list[str]:
    """The layers of parameters, those of a stack in their order."""
    leaves = jax.tree.leaves_with_path(params)
    found = {name for path, leaf in leaves for name in _layer_names(path, leaf.shape)}

    def by_number(name: str) -> tuple[str, int]:
        match = NUMBERED.fullmatch(name)
        return (match[1], int(match[2])) if match else (name, -1)

    return sorted(found, key=by_number)


def stacks(names: Sequence[str]) -> list[tuple[str, str]]:
    """The earliest and the latest layer of every stack of two or more."""
    members: dict[str, list[str]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            members.setdefault(match[1], []).append(name)
    return [(layers[0], layers[-1]) for layers in members.values() if len(layers) > 1]


def layer_norms(tree: Any) -> Array:
    """The Euclidean norm of each layer, in the order of layer_names, float32."""
    return jnp.sqrt(layer_squares(tree))


def layer_squares(tree: Any) -> Array:
    """The square of it; their sum is the square of the norm of all."""
    squares: dict[str, Array] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        names = _layer_names(path, leaf.shape)
        if not leaf.size:  # of attention without heads; jaxlib 0.11's compiler crashes on its sum
            squares |= {name: squares.get(name, jnp.zeros(())) for name in names}
            continue
        axes = range(1, leaf.ndim) if len(names) > 1 else range(leaf.ndim)
        found = jnp.sum(jnp.square(leaf.astype(jnp.float32)), axis=tuple(axes))
        for name, square in zip(names, found.reshape(-1), strict=True):
            squares[name] = squares.get(name, jnp.zeros(())) + square
    return jnp.stack([squares[name] for name in layer_names(tree)])
