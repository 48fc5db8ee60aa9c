"""Several processes, on one machine or many, as one run: what they know of each other.

All processes run the same command on the same files; training/connecting.py says how they find
each other. Process 0 alone writes. Each makes the global batch, a pure function of the step,
and puts the rows of its own devices there. What belongs to one process and decides what all do
is said through JAX's coordinator (`agreed`); training/peers.py watches over the rest. With one
process nothing here does anything.
"""

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from errors import ConfigError, Preempted
from training.peers import Peers
from training.signals import StopFlag
from trees import named_leaves

WEEK_MS = 7 * 24 * 3600 * 1000  # the watch ends a wait that is in vain
peers: Peers | None = None  # set by training/connecting.py


def number() -> int:
    """Processes of the run; touches no device."""
    return peers.number if peers else 1


def is_first() -> bool:
    """Whether this process is the one that writes; touches no device."""
    return peers is None or peers.process == 0


class SharedStop(StopFlag):
    """A StopFlag of many processes: a signal to one of them stops all at the same check."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._peers = peers
        peers.asked = lambda: self.reason

    def check(self) -> None:
        if reason := self._peers.check():
            raise Preempted(f"Stopped by {reason}.")

    def poll(self) -> None:
        if reason := self.reason or self._peers.poll():
            raise Preempted(f"Stopped by {reason}.")


def stop_flag() -> StopFlag:
    """The flag of this run, whatever the number of its processes."""
    return SharedStop(peers) if peers else StopFlag()


# ---------------------------------------------------------------- what all processes know


def agreed(name: str, value: Callable[[], Any]) -> Any:
    """What value() gives in process 0, a JSON value, in all processes.

    Args:
        name: the same in all of them, and new.
    """
    if peers is None:
        return value()
    if is_first():
        found = value()
        client().key_value_set(f"agreed/{name}", json.dumps(found))
        return found
    return json.loads(client().blocking_key_value_get(f"agreed/{name}", WEEK_MS))


def together(name: str) -> None:
    """Returns once all processes are here; the name is new."""
    if peers:
        client().wait_at_barrier(name, WEEK_MS)


def mine(devices: list[jax.Device]) -> slice:
    """Which of the devices, as many of each process after the other, are of this process."""
    each = len(devices) // number()
    first = (peers.process if peers else 0) * each
    return slice(first, first + each)


def here(mesh: Mesh) -> Mesh:
    """What of a mesh is of this process."""
    return mesh.local_mesh if peers else mesh


def meet(mesh: Mesh) -> None:
    """Connects the processes along all axes of a mesh of CPUs.

    Gloo does so at the first collective operation of each group of devices, and gives up after 30
    seconds, by which one process may well have compiled a step earlier than another.
    """
    if peers is None or mesh.devices.flat[0].platform != "cpu":
        return
    axes = [axis for axis in mesh.axis_names if mesh.shape[axis] > 1]
    groups = [group for n in range(len(axes)) for group in combinations(axes, n + 1)]

    def sums(x: jax.Array) -> list[jax.Array]:
        return [jax.lax.psum(x, group) for group in groups]

    whole = PartitionSpec()
    program = jax.shard_map(sums, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    one = place(np.ones(()), NamedSharding(mesh, whole))
    compiled = jax.jit(program).lower(one).compile()
    together("meet")
    jax.block_until_ready(compiled(one))


def settle(tree: Any) -> None:
    """Waits for a program that the next one does not depend on, on CPUs: Gloo would take the
    messages of two programs in flight for each other's."""
    if peers is not None and jax.default_backend() == "cpu":
        jax.block_until_ready(tree)


def check_same(settings: dict[str, Any]) -> None:
    """Refuses processes that were given different configs; raises ConfigError."""
    mine = {name: value for name, value in settings.items() if name != "data_dir"}
    theirs = agreed("settings", lambda: mine)
    mine, theirs = named_leaves(json.loads(json.dumps(mine))), named_leaves(theirs)
    for name in sorted(mine.keys() | theirs.keys()):
        here, there = mine.get(name), theirs.get(name)
        if here != there:
            raise ConfigError(
                f"config.{name.replace('/', '.')} is {here!r} in this process, but {there!r} in "
                "process 0. All processes must be given the same command."
            )


def place(array: Any, where: Sharding | None) -> jax.Array:
    """An array that every process has whole, where it belongs; of other processes' devices
    they place their part."""
    if where is None or where.is_fully_addressable:
        return jax.device_put(array, where)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def host_array(array: Any) -> np.ndarray:
    """A copy on the host of an array that may be spread over processes; all must ask for it."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if not array.is_fully_replicated:
            on_device = jax.device_put(array, array.sharding.with_memory_kind("device"))
            return np.asarray(multihost_utils.process_allgather(on_device, tiled=True))
        array = array.addressable_data(0)
    return np.array(array)


def host_arrays(named: dict[str, Any]) -> dict[str, np.ndarray]:
    """host_array of each, for the first process; the others keep none of them, and get {}."""
    found = {}
    for name, array in named.items():
        copy = host_array(array)
        if is_first():
            found[name] = copy
    return found


def spread(rows: jax.Array, where: Sharding) -> jax.Array:
    """The rows on this process's devices as its part of an array of all processes."""
    if peers is None:
        return rows
    shape = (rows.shape[0] * peers.number, *rows.shape[1:])
    parts = [shard.data for shard in rows.addressable_shards]
    return jax.make_array_from_single_device_arrays(shape, where, parts)


def local(tree: Any) -> Any:
    """Arrays with which a process may compute alone; all must ask for them."""
    return tree if peers is None else jax.device_put(jax.tree.map(host_array, tree))


def only_first(tree: Any) -> Any:
    """local() for the first process, None for the others; all must ask for it."""
    if peers is None:
        return tree
    found = host_arrays(named_leaves(tree))
    return (
        jax.device_put(jax.tree.unflatten(jax.tree.structure(tree), found.values()))
        if found
        else None
    )


def client() -> Any:
    """JAX's connection to the coordinator."""
    return jax._src.distributed.global_state.client
