"""The optimizer's moments in the memory of the host: config.parallel.offload.

Between steps they are there and nowhere else. Within a step a few parameters at a time have
theirs brought to the device, updated, and sent back (Ren et al. 2021, ZeRO-Offload, updates them
on the host's processor instead).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax import memory

from errors import ConfigError
from trees import named_leaves

HOST = "pinned_host"
GROUPS = 8  # of parameters, about equal in size: the update is traced once for each
IN_FLIGHT = 2  # of these on the device at once, so that one is copied while one is updated


def is_moved(path: Any, shape: Sequence[int]) -> bool:
    """Whether a leaf of the training state, with its path in it, is kept by the host: the
    matrices among what the optimizer remembers. Vectors are small, and a copy takes its time."""
    name = jax.tree_util.keystr(path[:1], simple=True)
    return name == "opt_state" and _large(shape)


def _large(shape: Sequence[int]) -> bool:
    return len(shape) > 1


def host_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes, that the host keeps for one device."""
    kept = [leaf for leaf in jax.tree.leaves(tree) if leaf.sharding.memory_kind == HOST]
    shares = ((leaf.sharding.shard_shape(leaf.shape), leaf.dtype.itemsize) for leaf in kept)
    return sum(math.prod(shape) * size for shape, size in shares)


def check_memory(devices: Sequence[jax.Device]) -> None:
    """Raises ConfigError where a device can't reach a memory of the host."""
    device = devices[0]
    kinds = sorted(one.kind for one in device.addressable_memories())
    if HOST not in kinds:
        raise ConfigError(
            f"config.parallel.offload 'moments' needs devices with the memory {HOST!r}, but a "
            f"{device.platform} device here has only {', '.join(map(repr, kinds))}."
        )


def streamed(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer for moments that are kept by the host, with the same numbers.

    All brought at once, the device would have to hold them all for a moment, and the copies to
    send back beside them. So the update is made for one group of parameters after another; what
    it computes for the others each time is used by nothing, and XLA drops it.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        group_of, leaf_group = _groups(params, state)
        before, updates, after = named_leaves(state), dict[str, Any](), dict[str, Any]()
        sent: list[list[str]] = []  # what each group has sent back
        for group in range(max(group_of.values()) + 1):
            mine = [name for name in before if leaf_group[name] == group]
            moved = {name: before[name] for name in mine if _large(before[name].shape)}
            if group >= IN_FLIGHT:  # not before an earlier one has left
                earlier = {name: after[name] for name in sent[group - IN_FLIGHT]}
                moved, earlier = jax.lax.optimization_barrier((moved, earlier))
                after |= earlier
            here = [_to(memory.Space.Device, leaf) for leaf in (before | moved).values()]
            there = jax.tree.unflatten(jax.tree.structure(state), here)
            found, new = optimizer.update(grads, there, params)
            update_of, new_of = named_leaves(found), named_leaves(new)
            updates |= {name: update_of[name] for name in update_of if group_of[name] == group}
            after |= {name: _to(memory.Space.Host, new_of[name]) for name in mine}
            sent.append(list(moved))
        return _like(grads, updates), _like(state, after)

    return optax.GradientTransformation(optimizer.init, update)


def _to(space: Any, leaf: jax.Array) -> jax.Array:
    return jax.device_put(leaf, space) if _large(leaf.shape) else leaf


def _like(tree: Any, named: dict[str, Any]) -> Any:
    leaves = [named[name] for name in named_leaves(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _groups(params: Any, state: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The group of each parameter, and of each leaf of the optimizer's state: that of the
    parameter whose name ends its own, or the first."""
    sizes = {name: leaf.size for name, leaf in named_leaves(params).items()}
    most, group, held, groups = sum(sizes.values()) / GROUPS, 0, 0, dict[str, int]()
    for name, size in sizes.items():
        groups[name], held = group, held + size
        if held >= most:
            group, held = group + 1, 0

    def of(name: str) -> int:
        parts = name.split("/")
        ends = ("/".join(parts[at:]) for at in range(len(parts)))
        return next((groups[end] for end in ends if end in groups), 0)

    return groups, {name: of(name) for name in named_leaves(state)}
