"""The one home of parallelism: the same step under `pmap` or over a mesh of devices.

strategy="pmap": plain data parallelism. The state is not stacked: it goes in and comes
out replicated, so a checkpoint of it fits every number of devices.
strategy="mesh": `jax.jit` over a Mesh (data, fsdp, tensor); rules map the axis names
that the models give their parameters and activations to axes of the mesh (axis_rules.py).
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from errors import ConfigError
from training import cores, distributed, offload, planned
from training.axis_rules import MESH_AXES, AxisRules
from training.rows import pad_rows, padded_shapes
from trees import mesh_axes

AXIS = "data"
DEFAULT = AxisRules()
# fn(state, batch, key, axis_name) -> (state, record) and fn(params, batch) -> sums
TrainFn = Callable[..., tuple[Any, Any]]
EvalFn = Callable[..., Any]


def _boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


def _popped(sums: Any) -> tuple[dict, Any]:
    """(sums, carry)"""
    return {name: value for name, value in sums.items() if name != "carry"}, sums.get("carry")


class PmapStrategy:
    """Data parallelism through `jax.pmap`."""

    axis_name: str | None = AXIS

    def __init__(self, devices: list[jax.Device], pieces: int) -> None:
        """`pieces`: into how many micro-batches a device cuts its rows."""
        self.devices, self.pieces = devices, pieces
        self.mine = distributed.mine(devices)

    def init(self, init: Callable[[], Any]) -> Any:
        """The state that init() gives, on every device."""
        state = jax.jit(lambda: nn.meta.unbox(init()))()
        return jax.tree.map(distributed.place, state, self._shardings(init))

    @property
    def mesh(self) -> Mesh:
        """All devices, in a row."""
        return Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))

    def sharding(self, spread: bool = False) -> NamedSharding:
        """On every device of this process, or with the leading axis spread over those of all."""
        if spread:
            return NamedSharding(self.mesh, PartitionSpec(AXIS))
        return NamedSharding(distributed.here(self.mesh), PartitionSpec())

    def _shardings(self, init: Callable[[], Any]) -> Any:
        one, rows = self.sharding(), self.sharding(spread=True)

        def of_leaf(leaf: Any) -> NamedSharding:
            return rows if getattr(leaf, "names", ())[:1] == ("batch",) else one

        return jax.tree.map(of_leaf, jax.eval_shape(init), is_leaf=_boxed)

    def abstract(self, init: Callable[[], Any]) -> Any:
        """Shapes and shardings of the state, to restore into."""
        return _abstract(init, self._shardings(init))

    @property
    def multiple(self) -> int:
        """Rows of a batch are filled up to a multiple of this."""
        return len(self.devices) * self.pieces

    def put(self, batch: Any) -> Any:
        """(B, ...) to (devices here, B / all devices, ...), padded with rows of weight 0."""
        num, batch = len(self.devices), pad_rows(batch, self.multiple)
        return jax.tree.map(lambda x: x.reshape(num, len(x) // num, *x.shape[1:])[self.mine], batch)

    def shapes(self, batch: Any) -> Any:
        """What `put` would give, as shapes."""
        num = len(self.devices)
        batch = padded_shapes(batch, self.multiple)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((num, x.shape[0] // num, *x.shape[1:]), x.dtype), batch
        )

    def train_step(self, step: TrainFn) -> planned.Program:
        """Compiles fn(state, batch, key); the state's buffers are reused.

        Outside, the state is whole: its carry has the shape (B, ...), spread over devices.
        """

        def local(state: Any, carry: Any, batch: Any, key: Any) -> tuple[Any, Any, Any]:
            state, record = step(state.replace(carry=carry), batch, key, axis_name=AXIS)
            return state.replace(carry=None), state.carry, record

        compiled = jax.pmap(
            local,
            AXIS,
            in_axes=(None, 0, 0, None),
            out_axes=(None, 0, None),
            donate_argnums=(0, 1),
            devices=self.devices,
        )
        num, rows = len(self.devices), self.sharding(spread=True)
        here = NamedSharding(distributed.here(self.mesh), rows.spec)

        @partial(jax.jit, out_shardings=rows)
        def cut(carry: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), carry)

        @partial(jax.jit, out_shardings=here)
        def join(carry: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carry)

        def all_rows(carry: Any) -> Any:
            return jax.tree.map(lambda x: distributed.spread(x, rows), join(carry))

        def whole(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
            carry = None if state.carry is None else cut(state.carry)
            state, carry, record = compiled(state.replace(carry=None), carry, batch, key)
            return state.replace(carry=None if carry is None else all_rows(carry)), record

        def lower(state: Any, batch: Any, key: Any) -> Any:
            carry = None if state.carry is None else jax.eval_shape(cut, state.carry)
            return compiled.lower(state.replace(carry=None), carry, batch, key)

        return planned.Program(whole, lower)

    def eval_step(self, step: EvalFn) -> EvalFn:
        """Compiles fn(params, batch) -> (sums over all devices, carry of the batch)."""

        def local(params: Any, batch: Any) -> Any:
            sums, carry = _popped(step(params, batch))
            return jax.lax.psum(sums, AXIS), carry

        return jax.pmap(local, AXIS, in_axes=(None, 0), out_axes=(None, 0), devices=self.devices)


class MeshStrategy:
    """`jax.jit` over a mesh, parameters and activations sharded by rules."""

    axis_name: str | None = None

    def __init__(
        self, mesh: Mesh, pieces: int, rules: AxisRules = DEFAULT, offloads: bool = False
    ) -> None:
        """`offloads`: whether the host keeps the optimizer's moments."""
        self.mesh, self.pieces, self.rules, self.offloads = mesh, pieces, rules, offloads
        self.everywhere = NamedSharding(mesh, PartitionSpec())  # every process reads records

    @contextlib.contextmanager
    def _scope(self) -> Any:
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules.pairs()):
            yield

    def _leaf_sharding(self, path: Any, leaf: Any) -> NamedSharding:
        names = getattr(leaf, "names", ())
        shape = nn.meta.unbox(leaf).shape
        spec = PartitionSpec()
        # Factored moments keep the names of the matrix that they summarise: replicate those.
        if len(names) == len(shape):
            self.rules.check(names, jax.tree_util.keystr(path, simple=True, separator="/"))
            spec = mesh_axes(names, shape, self.rules.pairs(), self.mesh.shape)
        moved = self.offloads and offload.is_moved(path, shape)
        return NamedSharding(self.mesh, spec, memory_kind=offload.HOST if moved else None)

    def _shardings(self, init: Callable[[], Any]) -> Any:
        shapes = jax.eval_shape(init)
        return jax.tree.map_with_path(self._leaf_sharding, shapes, is_leaf=_boxed)

    def init(self, init: Callable[[], Any]) -> Any:
        """The state that init() gives, each array made where it lives."""
        self.shardings = self._shardings(init)
        return jax.jit(lambda: nn.meta.unbox(init()), out_shardings=self.shardings)()

    def abstract(self, init: Callable[[], Any]) -> Any:
        """Shapes and shardings of the state, to restore into."""
        self.shardings = self._shardings(init)
        return _abstract(init, self.shardings)

    @property
    def multiple(self) -> int:
        """Rows of a batch are filled up to a multiple of this."""
        return math.prod(self.mesh.shape[axis] for axis in self.rules.batch) * self.pieces

    def put(self, batch: Any) -> Any:
        """The batch, its rows spread as the rules say, padded with rows of weight 0."""
        rows = self._rows()
        batch = pad_rows(batch, self.multiple)
        return jax.tree.map(lambda x: distributed.place(x, rows), batch)

    def _rows(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(self.rules.batch))

    def shapes(self, batch: Any) -> Any:
        """What `put` would give, as shapes."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._rows()),
            padded_shapes(batch, self.multiple),
        )

    def train_step(self, step: TrainFn) -> planned.Program:
        """Compiles fn(state, batch, key); the state's buffers are reused."""

        def whole(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
            return step(state, batch, key, axis_name=None)

        places = (self.shardings, self.everywhere)
        compiled = jax.jit(whole, donate_argnums=0, out_shardings=places)
        return planned.Program(self._in_scope(compiled), self._in_scope(compiled.lower))

    def eval_step(self, step: EvalFn) -> EvalFn:
        """Compiles fn(params, batch) -> (sums, carry of the batch)."""

        def sums(params: Any, batch: Any) -> tuple[dict, Any]:
            return _popped(step(params, batch))

        return self._in_scope(jax.jit(sums, out_shardings=(self.everywhere, None)))

    def _in_scope(self, compiled: Callable) -> Callable:
        def call(*args: Any) -> Any:
            with self._scope():
                return compiled(*args)

        return call


def _abstract(init: Callable[[], Any], shardings: Any) -> Any:
    shapes = jax.eval_shape(lambda: nn.meta.unbox(init()))
    return jax.tree.map(
        lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, shardings
    )


Strategy = PmapStrategy | MeshStrategy


def build_strategy(block: Mapping[str, Any], accumulate: int = 1) -> Strategy:
    """The strategy of config.parallel on the devices that are here.

    Raises:
        ConfigError: more devices than there are, a mesh that does not multiply to them,
            canonical shards that they do not divide, or no memory of the host to offload to.
    """
    found, wanted = planned.devices(), block["num_devices"]
    if wanted > len(found):
        raise ConfigError(
            f"config.parallel.num_devices is {wanted}, but JAX sees {len(found)} "
            f"{found[0].platform} device(s)."
        )
    devices = cores.for_training(found, wanted, distributed.number())
    shards = block["canonical_shards"]
    if shards % len(devices):
        raise ConfigError(
            f"config.parallel.canonical_shards ({shards}) must be a multiple of the number of "
            f"devices, {len(devices)}."
        )
    if block["strategy"] == "pmap":
        return PmapStrategy(devices, shards // len(devices) if shards else accumulate)
    shape = tuple(block["mesh"])
    if shape[0] == 0:
        shape = (len(devices) // max(1, int(np.prod(shape[1:]))), *shape[1:])
    if int(np.prod(shape)) != len(devices):
        raise ConfigError(
            f"config.parallel.mesh {shape} has {int(np.prod(shape))} places for "
            f"{len(devices)} device(s); the product must be equal (a leading 0 is filled in)."
        )
    # An axis may be part of one of a torus: 4 of v5p's 8 x 8 x 16, which make_mesh refuses.
    places = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    mesh = Mesh(places, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))
    offloads = block.get("offload") == "moments"
    if offloads:
        offload.check_memory(devices)
    return MeshStrategy(mesh, accumulate, AxisRules(**block.get("rules", {})), offloads)
