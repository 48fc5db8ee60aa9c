"""The one home of parallelism: the same step under `pmap` or over a mesh of devices.

strategy="pmap": plain data parallelism. The state is not stacked: it goes in and comes
out replicated, so a checkpoint of it fits every number of devices.
strategy="mesh": `jax.jit` over a Mesh (data, fsdp, tensor); RULES map the axis names
that the models give their parameters and activations to axes of the mesh.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from errors import ConfigError

AXIS = "data"
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("gates", "tensor"),
    ("hidden", None),
    ("kv", None),
    ("length", None),
    ("layers", None),
)
# fn(state, batch, key, axis_name) -> (state, record) and fn(params, batch, axis_name) -> sums
TrainFn = Callable[..., tuple[Any, Any]]
EvalFn = Callable[..., Any]


def _pad_rows(batch: Mapping[str, np.ndarray], multiple: int) -> dict[str, np.ndarray]:
    """Adds rows of zeros (weight 0) until the batch divides."""
    rows = next(iter(batch.values())).shape[0]
    missing = -rows % multiple
    if not missing:
        return dict(batch)
    return {k: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for k, x in batch.items()}


class PmapStrategy:
    """Data parallelism through `jax.pmap`."""

    axis_name: str | None = AXIS

    def __init__(self, devices: list[jax.Device], pieces: int) -> None:
        """`pieces`: into how many micro-batches a device cuts its rows."""
        self.devices, self.pieces = devices, pieces

    def init(self, init: Callable[[], Any]) -> Any:
        """The state that init() gives, on every device."""
        state = jax.jit(lambda: nn.meta.unbox(init()))()
        return jax.device_put(state, self.sharding())

    def sharding(self) -> NamedSharding:
        mesh = jax.make_mesh((len(self.devices),), (AXIS,), (AxisType.Auto,), devices=self.devices)
        return NamedSharding(mesh, PartitionSpec())

    def abstract(self, init: Callable[[], Any]) -> Any:
        """Shapes and shardings of the state, to restore into."""
        shapes = jax.eval_shape(lambda: nn.meta.unbox(init()))
        one = self.sharding()
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one), shapes)

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """(B, ...) to (devices, B / devices, ...), padded with rows of weight 0."""
        num = len(self.devices)
        batch = _pad_rows(batch, num * self.pieces)
        return {k: x.reshape(num, x.shape[0] // num, *x.shape[1:]) for k, x in batch.items()}

    def train_step(self, step: TrainFn) -> TrainFn:
        """Compiles fn(state, batch, key); the state's buffers are reused."""

        def local(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
            return step(state, batch, key, axis_name=AXIS)

        return jax.pmap(
            local,
            AXIS,
            in_axes=(None, 0, None),
            out_axes=(None, None),
            donate_argnums=0,
            devices=self.devices,
        )

    def eval_step(self, step: EvalFn) -> EvalFn:
        """Compiles fn(params, batch) -> sums over all devices."""

        def local(params: Any, batch: Any) -> Any:
            return jax.lax.psum(step(params, batch), AXIS)

        return jax.pmap(local, AXIS, in_axes=(None, 0), out_axes=None, devices=self.devices)


class MeshStrategy:
    """`jax.jit` over a mesh, parameters and activations sharded by RULES."""

    axis_name: str | None = None

    def __init__(self, mesh: Mesh, pieces: int) -> None:
        self.mesh, self.pieces = mesh, pieces

    @contextlib.contextmanager
    def _scope(self) -> Any:
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(RULES):
            yield

    def _leaf_sharding(self, leaf: Any) -> NamedSharding:
        spec: list = []
        names = getattr(leaf, "names", ())
        shape = nn.meta.unbox(leaf).shape
        # Factored moments keep the names of the matrix that they summarise: replicate those.
        if len(names) == len(shape):
            axes = nn.logical_to_mesh_axes(names, RULES)
            pairs = zip(axes, shape, strict=True)
            spec = [axis if self._divides(axis, size) else None for axis, size in pairs]
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def _divides(self, axes: Any, size: int) -> bool:
        axes = (axes,) if isinstance(axes, str) else axes or ()
        return size % int(np.prod([self.mesh.shape[a] for a in axes])) == 0

    def _shardings(self, init: Callable[[], Any]) -> Any:
        def boxed(leaf: Any) -> bool:
            return isinstance(leaf, nn.meta.AxisMetadata)

        return jax.tree.map(self._leaf_sharding, jax.eval_shape(init), is_leaf=boxed)

    def init(self, init: Callable[[], Any]) -> Any:
        """The state that init() gives, each array made where it lives."""
        self.shardings = self._shardings(init)
        return jax.jit(lambda: nn.meta.unbox(init()), out_shardings=self.shardings)()

    def abstract(self, init: Callable[[], Any]) -> Any:
        """Shapes and shardings of the state, to restore into."""
        self.shardings = self._shardings(init)
        shapes = jax.eval_shape(lambda: nn.meta.unbox(init()))
        return jax.tree.map(
            lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
            shapes,
            self.shardings,
        )

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The batch, its rows spread over data and fsdp, padded with rows of weight 0."""
        spread = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        batch = _pad_rows(batch, spread * self.pieces)
        return jax.device_put(batch, NamedSharding(self.mesh, PartitionSpec(("data", "fsdp"))))

    def train_step(self, step: TrainFn) -> TrainFn:
        """Compiles fn(state, batch, key); the state's buffers are reused."""

        def whole(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
            return step(state, batch, key, axis_name=None)

        compiled = jax.jit(whole, donate_argnums=0, out_shardings=(self.shardings, None))
        return self._in_scope(compiled)

    def eval_step(self, step: EvalFn) -> EvalFn:
        """Compiles fn(params, batch) -> sums."""
        return self._in_scope(jax.jit(step))

    def _in_scope(self, compiled: Callable) -> Callable:
        def call(*args: Any) -> Any:
            with self._scope():
                return compiled(*args)

        return call


Strategy = PmapStrategy | MeshStrategy


def build_strategy(block: Mapping[str, Any], accumulate: int = 1) -> Strategy:
    """The strategy of config.parallel on the devices that are here.

    Raises:
        ConfigError: more devices than there are, a mesh that does not multiply to them, or
            canonical shards that they do not divide.
    """
    found, wanted = jax.devices(), block["num_devices"]
    if wanted > len(found):
        raise ConfigError(
            f"config.parallel.num_devices is {wanted}, but JAX sees {len(found)} "
            f"{found[0].platform} device(s)."
        )
    devices = found[:wanted] if wanted else found
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
    auto = (AxisType.Auto,) * 3
    return MeshStrategy(
        jax.make_mesh(shape, ("data", "fsdp", "tensor"), auto, devices=devices), accumulate
    )
