"""The figures of a plan that need no compiler: parameters, FLOPs, memory and messages."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

import models
from analysis.planning import Exchange, by_part, exchanges
from experiments.planning.stand_in import StandIn
from training import flops
from training.offload import host_bytes
from training.parallel import MeshStrategy
from training.trainer import Trainer


class Formula(NamedTuple):
    """A step by formula.

    Attributes:
        parameters, flops: of the whole model by part; FLOPs are of training, recomputation not
            counted.
        state: bytes on one device by what they are for.
        host: bytes of moments that the host keeps for a device (config.parallel.offload).
        gradients, activations: bytes on one device; activations are all that the backward pass
            of a micro-batch reads, each array once, before the compiler fuses any away.
        pieces: micro-batches of a step.
        exchanges: between devices.
        mesh: devices along "data", "fsdp" and "tensor".
    """

    parameters: dict[str, float]
    flops: dict[str, float]
    state: dict[str, float]
    host: float
    gradients: float
    activations: float
    pieces: int
    exchanges: list[Exchange]
    mesh: dict[str, int]

    @property
    def num_parameters(self) -> float:
        return sum(self.parameters.values())

    @property
    def model_flops(self) -> float:
        return sum(self.flops.values())

    @property
    def memory(self) -> float:
        """Bytes that a device needs at most."""
        return sum(self.state.values()) + self.gradients + self.activations

    @property
    def bytes(self) -> float:
        """Bytes read and written at least: the state twice, what comes from the host and goes back
        there four times, and for each micro-batch the gradients twice and the parameters in the
        forward and in the backward pass."""
        each = self.gradients + self.state["parameters"]
        return 2 * (sum(self.state.values()) + 2 * self.host + self.pieces * each)

    @property
    def unfused_bytes(self) -> float:
        """The same, and all activations written and read, of which a compiler fuses many away."""
        return self.bytes + 2 * self.pieces * self.activations

    @property
    def sent(self) -> float:
        return sum(one.sent for one in self.exchanges)


def by_formula(settings: Mapping[str, Any], given: StandIn, trainer: Trainer) -> Formula:
    """The figures of a run whose trainer is built."""
    strategy = trainer.strategy
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    if isinstance(strategy, MeshStrategy):
        mesh |= {str(name): int(size) for name, size in strategy.mesh.shape.items()}
    else:
        mesh["data"] = len(strategy.devices)
    leaves = jax.tree_util.tree_leaves_with_path(trainer.shapes)
    sizes = [(path_of(path), leaf.size) for path, leaf in leaves]
    products = flops.flops_by_scope(trainer.eval_sums, trainer.shapes, given.batch)
    host = float(host_bytes(trainer.abstract))
    state = {
        "parameters": _on_device(trainer.shapes),
        "optimizer": _on_device(trainer.abstract.opt_state) - host,
        "moving average": _on_device(trainer.abstract.ema_params),
    }
    model = models.inner_of(trainer.model)
    pieces = settings["accumulate"]
    held = mesh.get("data", 1) * mesh.get("fsdp", 1)
    wide = 2 if getattr(model, "dtype", "float32") == "bfloat16" else 4
    width, reductions = _reductions(trainer)
    total = sum(size for _, size in sizes)
    activation = given.tokens / held * width * wide
    return Formula(
        parameters=by_part(sizes),
        flops={part: 3 * n for part, n in by_part(products.items()).items()},
        state={name: size for name, size in state.items() if size},
        host=host,
        gradients=state["parameters"],
        activations=_kept(given, trainer) / held / pieces,
        pieces=pieces,
        exchanges=exchanges(
            mesh, 4.0 * total, wide * total, activation, reductions, _remat(model), pieces
        ),
        mesh=mesh,
    )


def _remat(model: nn.Module) -> bool:
    return getattr(model, "remat", False) not in (False, "none")


def path_of(path: tuple) -> str:
    """The names of a leaf of a tree of parameters, with slashes between them."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def _on_device(tree: Any) -> float:
    """Bytes of arrays on one device, as they are spread."""
    leaves = jax.tree.leaves(tree)
    shapes = ((leaf.sharding.shard_shape(leaf.shape), leaf.dtype.itemsize) for leaf in leaves)
    return float(sum(math.prod(shape) * size for shape, size in shapes))


def _kept(given: StandIn, trainer: Trainer) -> float:
    """Bytes that the backward pass of the whole batch reads and that are no parameters."""
    key = jax.eval_shape(lambda: jax.random.key(0))

    def backward(params: Any, batch: Any, key: Any) -> Any:
        def loss(params: Any) -> Any:
            variables = {"params": params}
            return trainer.task.loss(trainer.model, variables, batch, key, train=True)["loss"][0]

        return jax.vjp(loss, params)[1]

    carry = jax.eval_shape(lambda: trainer.task.init_carry(trainer.model))
    batch = dict(given.batch) if carry is None else {**given.batch, "carry": carry}
    found = jax.eval_shape(backward, trainer.shapes, batch, key)
    left = jax.tree.leaves(getattr(found, "opaque_residuals", found))
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in left))


def _reductions(trainer: Trainer) -> tuple[int, float]:
    """(width of the stream between layers, products whose contracted axis tensor cuts)."""
    boxed = jax.eval_shape(lambda: models.init_boxed(trainer.model, jax.random.key(0)))
    count, width = 0.0, 0
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)):
        names: tuple = getattr(leaf, "names", ())
        sizes = nn.meta.unbox(leaf).shape
        if len(names) > 1 and names[-1] == "embed" and {"mlp", "heads"} & set(names):
            count += sizes[0] if names[0] == "layers" else 1
            width = sizes[-1]
    return width, count
