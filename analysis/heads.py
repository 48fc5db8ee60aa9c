"""The attention heads of a model, and its losses without some of them (Michel et al. 2019).

Heads stand in one order, X: by part of the model, layer and number. A mask over them is a row of
zeros and ones, so that one compiled evaluation serves all that one wants to remove. Axes: X heads,
M masks, and those of models/__init__.py.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from analysis.attention import PARTS, Head, place_of
from data import PAD
from errors import ConfigError

Array = jax.Array
Path = tuple[str, ...]
Kind = Literal["zero", "mean", "resample"]

MOST_AT_ONCE = 32  # masks; more are no faster on a CPU


class Layer(NamedTuple):
    """The heads of one attention layer.

    Attributes:
        part: of its heads' names.
        number: of the layer, from 0.
        path: of its module in the variables.
        place: in the stack of layers under a scan, else None.
    """

    part: str
    number: int
    path: Path
    place: int | None
    num_heads: int


class Heads:
    """All heads of a model.

    Raises:
        ConfigError: it has none.
    """

    def __init__(self, model: Any, variables: Any) -> None:
        inputs = models.example_inputs(model)
        self.layers = sorted(
            (
                layer
                for path, output in recorded_outputs(model, variables, inputs).items()
                for layer in _layers_at(path, output.shape)
            ),
            key=lambda layer: (PARTS.index(layer.part), layer.number),
        )
        if not self.layers:
            raise ConfigError(f"{type(model).__name__} has no attention, so no heads.")

    @functools.cached_property
    def names(self) -> list[Head]:
        return [Head(x.part, x.number, h) for x in self.layers for h in range(x.num_heads)]

    @functools.cached_property
    def layer_of_X(self) -> np.ndarray:
        """The number of each head's layer in `layers`."""
        return np.repeat(np.arange(len(self.layers)), [x.num_heads for x in self.layers])

    def __len__(self) -> int:
        return len(self.names)

    def without_each(self) -> np.ndarray:
        """Masks (X, X): row x removes head x."""
        return 1 - np.eye(len(self), dtype=np.float32)

    def only_each(self) -> np.ndarray:
        """Masks (X, X): row x removes all others of the layer of head x."""
        same_XX = self.layer_of_X[:, None] == self.layer_of_X
        return np.where(same_XX, np.eye(len(self)), 1).astype(np.float32)

    def by_path(self, values_X: Any) -> dict[Path, Any]:
        """Values of the heads, as each module has them: (H,), or (N, H) under a scan."""
        ends = np.cumsum([layer.num_heads for layer in self.layers])
        found: dict[Path, Any] = {}
        for layer, end in zip(self.layers, ends, strict=True):
            values_H = values_X[end - layer.num_heads : end]
            if layer.place is None:
                found[layer.path] = values_H
            else:
                found.setdefault(layer.path, []).append(values_H)  # in order of their places
        return {path: jnp.stack(x) if isinstance(x, list) else x for path, x in found.items()}

    def in_order(self, values: Mapping[Path, Any]) -> np.ndarray:
        """The inverse of by_path; axes after the heads stay."""
        pieces = [
            np.asarray(values[x.path] if x.place is None else values[x.path][x.place])
            for x in self.layers
        ]
        return np.concatenate(pieces)

    def masked(self, variables: Any, mask_X: Any, values: Mapping[Path, Any] | None = None) -> Any:
        """The variables of a model that lacks the heads where the mask is 0.

        Args:
            values: what stands in their place, by the path of a module (head_value of
                models/attention/ablation.py).
        """
        return ablated(variables, self.by_path(mask_X), values or {})


def ablated(variables: Any, masks: Mapping[Path, Any], values: Mapping[Path, Any]) -> Any:
    """The variables with a collection 'ablation' of masks and values, by path of the module."""
    flat = {(*path, "head_mask"): mask for path, mask in masks.items()}
    flat |= {(*path, "head_value"): value for path, value in values.items()}
    return {**variables, "ablation": unflatten_dict(flat)}


def _layers_at(path: Path, shape: tuple[int, ...]) -> list[Layer]:
    """The layers of a module whose output has this shape, ([N,] B, T, H, K)."""
    part, number = place_of(path)
    if len(shape) == 5:
        return [Layer(part, n, path, n, shape[-2]) for n in range(shape[0])]
    return [Layer(part, number, path, None, shape[-2])]


def recorded_outputs(model: Any, variables: Any, inputs: tuple) -> dict[Path, jax.ShapeDtypeStruct]:
    """The shape ([N,] B, T, H, K) of what the heads of each module give."""

    def record(variables: Any, inputs: tuple) -> Any:
        return model.apply(variables, *inputs, mutable=["heads"])[1].get("heads", {})

    shapes = flatten_dict(jax.eval_shape(record, variables, inputs))
    return {path[:-1]: shape for path, shape in shapes.items()}


def queries_of(path: Path, batch: Mapping[str, Array]) -> Array:
    """True at the tokens (B, T) from which a layer looks."""
    return batch["source" if path[0] == "encoder" and "source" in batch else "inputs"] != PAD


def require_others(batches: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Raises ConfigError where an example has no other in its batch to take heads from."""
    for batch in batches:
        if (batch["weights"].sum(1) > 0).sum() == 1:
            raise ConfigError(
                "Kind resample takes what heads give for another example of the batch, and one "
                "batch has a single example: choose kind zero or mean."
            )


def of_another_row(out: Array, real_B: Array, queries_BT: Array) -> Array:
    """What the heads gave for the next example of a batch, its tokens again where it is shorter.

    Args:
        out: ([N,] B, T, H, K). real_B: rows that hold an example, the first of all.
    """
    num_rows = jnp.maximum(real_B.sum(), 1)
    row_B = jnp.arange(len(real_B))
    other_B = jnp.where(row_B < num_rows, (row_B + 1) % num_rows, row_B)
    length_B1 = jnp.maximum(queries_BT.sum(1), 1)[other_B][:, None]
    place_BT = jnp.arange(queries_BT.shape[1]) % length_B1
    return out[..., other_B[:, None], place_BT, :, :]


def free_bytes() -> int:
    """A quarter of the memory that is free where JAX computes."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return (stats["bytes_limit"] - stats["bytes_in_use"]) // 4
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


class Ablation:
    """Losses of examples under masks of heads, many masks in each call of one program.

    Args:
        task: gives `inputs` and `token_losses` of a batch (tasks.Task).
        kind: what stands in the place of a removed head: zeros, its mean (`means`, from
            head_measures.measure), or what it gives for another example of the batch.
        num_bytes: that a program may take for what it computes; masks are divided into
            chunks that keep it, by what the compiler says. None: a quarter of what is free.
    """

    def __init__(
        self,
        task: Any,
        model: Any,
        variables: Any,
        heads: Heads,
        kind: Kind = "zero",
        means: Mapping[Path, Any] | None = None,
        num_bytes: int | None = None,
    ) -> None:
        self.task, self.model, self.variables, self.heads = task, model, variables, heads
        self.kind, self.means = kind, dict(means or {}) if kind == "mean" else {}
        self.num_bytes = free_bytes() if num_bytes is None else num_bytes
        self._programs: dict[tuple, tuple[int, Any]] = {}

    def __call__(self, masks_MX: np.ndarray, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """The summed loss of each row of a batch under each mask, (M, B), float64."""
        if self.kind == "resample":
            require_others([batch])
        size, program = self._program(masks_MX, batch)
        full = -(-len(masks_MX) // size) * size
        padded_MX = np.pad(masks_MX, ((0, full - len(masks_MX)), (0, 0)), constant_values=1)
        chunks = [
            program(self.variables, self.means, dict(batch), padded_MX[start : start + size])
            for start in range(0, full, size)
        ]
        return np.concatenate([np.asarray(x, np.float64) for x in chunks])[: len(masks_MX)]

    def over(
        self,
        masks_MX: np.ndarray,
        batches: Iterable[Mapping[str, np.ndarray]],
        tick: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed losses (M, E) and predicted tokens (E,) of all examples of some batches.

        Equal masks are computed once; calls tick() after each batch.
        """
        distinct, place = np.unique(masks_MX.astype(np.float32), axis=0, return_inverse=True)
        losses, weights = [], []
        for batch in batches:
            num_tokens_B = batch["weights"].sum(1)
            losses.append(self(distinct, batch)[:, num_tokens_B > 0])
            weights.append(num_tokens_B[num_tokens_B > 0])
            tick()
        return np.concatenate(losses, axis=1)[place.ravel()], np.concatenate(weights)

    def _program(self, masks_MX: np.ndarray, batch: Mapping[str, np.ndarray]) -> tuple[int, Any]:
        """How many masks one call takes, and what to call, for batches of this shape."""
        most = min(len(masks_MX), MOST_AT_ONCE)
        key = (most, *(x.shape for x in batch.values()))
        if key in self._programs:
            return self._programs[key]
        num_chunks = -(-len(masks_MX) // most)
        while True:
            size = -(-len(masks_MX) // num_chunks)
            arguments = (self.variables, self.means, dict(batch), masks_MX[:size])
            program = jax.jit(self._row_losses).lower(*arguments).compile()
            found = program.memory_analysis()
            needed = found.temp_size_in_bytes if found else 0
            if needed <= self.num_bytes or size == 1:
                self._programs[key] = size, program
                return self._programs[key]
            num_chunks = max(num_chunks + 1, -(-needed * num_chunks // max(self.num_bytes, 1)))
            num_chunks = min(num_chunks, len(masks_MX))

    def _row_losses(self, variables: Any, means: dict, batch: dict, masks_CX: Array) -> Array:
        values = means
        if self.kind == "resample":
            values = self._values_of_others(variables, batch)

        def row_losses(mask_X: Array) -> Array:
            masked = self.heads.masked(variables, mask_X, values)
            return self.task.token_losses(self.model, masked, batch)[0].sum(1)

        return jax.vmap(row_losses)(masks_CX)

    def _values_of_others(self, variables: Any, batch: dict) -> dict[Path, Array]:
        inputs = self.task.inputs(batch)
        seen = self.model.apply(variables, *inputs, mutable=["heads"])[1]["heads"]
        real_B = batch["weights"].sum(1) > 0
        return {
            path[:-1]: of_another_row(out, real_B, queries_of(path, batch))
            for path, out in flatten_dict(seen).items()
        }
