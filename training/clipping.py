"""What is done to a gradient before its global norm is cut, by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from registry import PositiveFloat

Array = jax.Array
Clip = Callable[[Any, Any], Any]  # (gradients, parameters) -> gradients


def unclipped(grads: Any, params: Any) -> Any:
    """The gradients as they are."""
    return grads


def none() -> Clip:
    """Nothing."""
    return unclipped


def value(limit: PositiveFloat) -> Clip:
    """Each element to [-limit, limit] (Mikolov 2012, 3.2.2); the direction changes."""
    return lambda grads, params: jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads)


def adaptive(ratio: PositiveFloat = 0.01, eps: PositiveFloat = 1e-3) -> Clip:
    """Each unit's gradient G to at most `ratio` of its weights W (Brock et al. 2021, eq. 3).

      G <- ratio * max(|W|, eps) / |G| * G   where   |G| / max(|W|, eps) > ratio

    A unit is what makes one output: all axes of a kernel but the last; a vector is one unit.
    """

    def clip(g: Array, w: Array) -> Array:
        most = ratio * jnp.maximum(_unit_norm(w), eps)
        norm = _unit_norm(g)
        return jnp.where(norm > most, g * (most / jnp.maximum(norm, 1e-30)), g)

    return lambda grads, params: jax.tree.map(clip, grads, params)


def _unit_norm(x: Array) -> Array:
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))


CLIPPERS = {"none": none, "value": value, "adaptive": adaptive}
