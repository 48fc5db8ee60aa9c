"""Parameters that training leaves alone."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import optax

import registry
from errors import ConfigError
from trees import named_leaves


def freeze(
    optimizer: optax.GradientTransformation, params: Any, patterns: Sequence[str]
) -> optax.GradientTransformation:
    """The optimizer for all parameters but those whose names match a pattern.

    Args:
        params: the tree of parameters, or of their shapes.
        patterns: as of a shell, over paths such as "encoder/layers_0/self_norm/scale".

    Raises:
        ConfigError: a pattern that matches nothing, or patterns that match everything.
    """
    if not patterns:
        return optimizer
    names = list(named_leaves(params))
    frozen = [any(fnmatch.fnmatchcase(name, p) for p in patterns) for name in names]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"config.freeze: {registry.unknown('parameter', pattern, names)}")
    if all(frozen):
        raise ConfigError(f"config.freeze: {patterns} leaves no parameter to train.")
    labels = ["frozen" if yes else "trained" for yes in frozen]
    tree = jax.tree.unflatten(jax.tree.structure(params), labels)
    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, tree)
