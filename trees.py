"""Names of the arrays in a tree and of their axes: of parameters, shapes, or all that is saved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

Name = str | tuple[str, ...] | None
Rules = Sequence[tuple[str, tuple[str, ...]]]


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves in their order by paths such as "encoder/layers_0/self_norm/scale".

    Raises:
        ValueError: two of them have the same path.
    """
    leaves = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("Two arrays of a tree have the same path.")
    return named


def mesh_axes(
    names: Sequence[Name], shape: Sequence[int], rules: Rules, mesh: Mapping[str, int]
) -> PartitionSpec:
    """Over which axes of a mesh an array is spread: what the rules say of each named axis.

    An axis whose size the devices don't divide stays whole, and so does one without a rule.

    Args:
        names: of the axes; several names are of an axis into which others were merged.
        rules: (name, axes of the mesh) pairs, as flax.linen.logical_axis_rules has them.
        mesh: sizes of the mesh's axes.
    """
    known: dict[str | None, tuple[str, ...]] = dict(rules)

    def fitting(name: Name, size: int) -> tuple[str, ...] | None:
        merged = name if isinstance(name, tuple) else (name,)
        axes = tuple(axis for part in merged for axis in known.get(part) or ())
        return axes if axes and size % math.prod(mesh[axis] for axis in axes) == 0 else None

    return PartitionSpec(*map(fitting, names, shape))


def spread() -> bool:
    """Whether arrays are spread over a mesh here: a reshape that merges two axes of one undoes
    that, and what follows is computed by every device."""
    return bool(nn.get_logical_axis_rules())


def devices_of(*names: str) -> tuple[tuple[str, ...], int]:
    """Axes of the mesh in scope over which axes of these names are spread, and how many shares
    that makes; without a mesh, one."""
    rules, mesh = dict(nn.get_logical_axis_rules()), jax.sharding.get_abstract_mesh().shape
    axes = tuple(axis for name in names for axis in rules.get(name) or ())
    return axes, math.prod(mesh[axis] for axis in axes)


def constrain(x: jax.Array, *names: Name) -> jax.Array:
    """x, whose axes have these names, spread over the mesh in scope; without one, x."""
    if not spread():
        return x
    mesh = jax.sharding.get_abstract_mesh().shape
    axes = mesh_axes(names, x.shape, nn.get_logical_axis_rules(), mesh)
    return jax.lax.with_sharding_constraint(x, axes)
