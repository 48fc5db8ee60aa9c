"""Removing heads one after another, in several orders, and from the arrays of a model.

Random orders come close to learned ones (Budhraja et al. 2020), so that no curve means anything
without them. Axes: X heads, C numbers of heads that are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from analysis.head_measures import importance_sums, normalised
from analysis.heads import Heads, Layer, Path
from errors import ConfigError
from models.recurrent.seq2seq import RecurrentSeq2Seq
from models.transformer.base import Transformer


class Slice(NamedTuple):
    """Where the heads of a layer lie in an array.

    Attributes:
        axis: along which they lie one after another, from `start`, with `width` places each.
    """

    path: Path
    axis: int
    start: int = 0
    width: int = 1


def nested_masks(scores_X: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Masks (C, X) that keep the heads with the highest scores; of equal ones the first."""
    rank_X = np.empty(len(scores_X), int)
    rank_X[np.argsort(-scores_X, kind="stable")] = np.arange(len(scores_X))
    return (rank_X < np.asarray(kept)[:, None]).astype(np.float32)


def masks_by_importance(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Iterable[Mapping[str, np.ndarray]],
    kept: Sequence[int],
    normalise: bool = False,
) -> np.ndarray:
    """Masks (C, X) of iterative pruning (Michel et al. 2019, section 4).

    The importance of the heads that are left is measured anew before each removal.

    Args:
        kept: numbers of heads, from many to few.
        normalise: divide by the norm of the layer, which keeps the last heads of all layers.
    """
    sums_of = jax.jit(importance_sums, static_argnums=(0, 1))
    mask_X, masks = np.ones(len(heads), np.float32), []
    for count in kept:
        if count < mask_X.sum():
            total_X = np.zeros(len(heads))
            for batch in batches:
                sums = sums_of(task, model, variables, heads.by_path(mask_X), dict(batch))
                total_X += heads.in_order(sums[0])
            total_X = normalised(heads, total_X * mask_X) if normalise else total_X
            left_X = np.where(mask_X > 0, total_X, -np.inf)
            mask_X = nested_masks(left_X, [count])[0]
        masks.append(mask_X)
    return np.array(masks)


def array_of(params: Mapping[Path, Any], layer: Layer, *names: str) -> np.ndarray:
    """An array of a layer from flat parameters, taken out of the stack of a scan."""
    array = np.asarray(params[(*layer.path, *names)])
    return array if layer.place is None else array[layer.place]


def weight_norms(model: Any, variables: Any, heads: Heads) -> np.ndarray:
    """|W_V W_O| (Frobenius) of each head: what it can write at most.

    W_O of a recurrent decoder is all that reads the context, side by side.

    Raises:
        ConfigError: the heads of this model have no values of their own.
    """
    require_separable(model)
    params, norms = flatten_dict(variables["params"]), []
    for layer in heads.layers:
        if is_transformer(model):
            value_DHK = array_of(params, layer, "value", "kernel")
            out_HKE = array_of(params, layer, "out", "kernel")
        else:
            heads_of_layer, readers = layer.num_heads, context_readers(model, params)
            value_DX = params[(*layer.path, "score", "value", "kernel")]
            value_DHK = np.reshape(value_DX, (len(value_DX), heads_of_layer, -1))
            out_HKE = np.concatenate(
                [
                    np.reshape(
                        params[path][start : start + value_DX.shape[1]],
                        (heads_of_layer, value_DHK.shape[2], -1),
                    )
                    for path, _, start, _ in readers
                ],
                axis=-1,
            )
        products_HDE = np.einsum("dhk,hke->hde", value_DHK, out_HKE)
        norms.append(np.sqrt(np.square(products_HDE).sum((1, 2))))
    return np.concatenate(norms)


def is_transformer(model: Any) -> bool:
    """Whether the heads are arrays of their own in every layer."""
    halves = [getattr(model, f"{half}_layers", "") for half in ("encoder", "decoder")]
    return isinstance(model, Transformer) and "recurrent" not in halves


def is_separable(model: Any) -> bool:
    """Whether heads can be cut out of the arrays of a model."""
    attends_with_heads = isinstance(model, RecurrentSeq2Seq) and model.attention == "multi_head"
    return attends_with_heads or is_transformer(model)


def least_heads(model: Any) -> int:
    """How many heads must be left: an RNN without any would have no attention."""
    return 0 if is_transformer(model) else 1


def require_separable(model: Any) -> None:
    """Raises ConfigError for other models."""
    if not is_separable(model):
        raise ConfigError(
            "Heads can be cut out of a Transformer or of an RNN with attention='multi_head'; this "
            f"is a {type(model).__name__}."
        )


def slices_of(model: Any, params: Mapping[Path, Any], layer: Layer) -> list[Slice]:
    """Where the heads of a layer lie in flat parameters, those of a scan out of their stacks."""
    path = layer.path
    if is_transformer(model):
        if layer.place is not None:
            path = (path[0], f"layers_{layer.place}", *path[2:])
        inner = [((name, "kernel"), 1) for name in ("query", "key", "value")]
        inner += [((name, "bias"), 0) for name in ("query", "key", "value")]
        return [Slice((*path, *names), axis) for names, axis in [*inner, (("out", "kernel"), 0)]]
    names = (("query",), ("key", "kernel"), ("value", "kernel"))
    inner = [((*path, "score", *name), 1) for name in names]
    width = params[inner[0][0]].shape[1] // layer.num_heads
    own = [Slice(found, axis, 0, width) for found, axis in inner]
    return own + [reader._replace(width=width) for reader in context_readers(model, params)]


def context_readers(model: RecurrentSeq2Seq, params: Mapping[Path, Any]) -> list[Slice]:
    """The matrices that a context is multiplied with, at its place among what they read."""
    if model.context_to == "output":  # [context; s]
        return [Slice(("attention_decoder", "combine"), 0)]
    # the cell reads [s; context], the readout and a pointer [s; word; context]
    found = [Slice(("attention_decoder", "unit", "recurrent"), 0, model.hidden_size)]
    before = model.hidden_size + model.embedding_size
    names = [("readout", "kernel"), ("pointer", "gate", "kernel")]
    return found + [Slice(name, 0, before) for name in names if name in params]


def remove_heads(model: Any, variables: Any, mask_X: np.ndarray) -> tuple[Any, dict]:
    """A smaller model without the heads where the mask is 0, and its variables.

    It computes what the whole model does under that mask. Layers of a scan become layers of a
    loop, as they are no longer alike.

    Returns:
        (model with heads_kept, {"params": ...}).

    Raises:
        ConfigError: its heads cannot be cut out or differ in more than their weights, or an RNN
            would have none left.
    """
    require_separable(model)
    if is_transformer(model) and not model.heads_are_alike():
        raise ConfigError(
            "Heads can be cut out only where heads are alike; these share keys or "
            "have positions of their own."
        )
    if mask_X.sum() < least_heads(model):
        raise ConfigError(f"A {type(model).__name__} needs one head at least.")
    heads = Heads(model, variables)
    params = flatten_dict(variables["params"])
    smaller = _out_of_stacks(params) if getattr(model, "scan_layers", False) else dict(params)
    counts = []
    for i, layer in enumerate(heads.layers):
        keep_H = mask_X[heads.layer_of_X == i] > 0
        counts.append(int(keep_H.sum()))
        for path, axis, start, width in slices_of(model, smaller, layer):
            array = np.asarray(smaller[path])
            places = start + np.flatnonzero(np.repeat(~keep_H, width))
            smaller[path] = np.delete(array, places, axis)
    one_by_one = {"scan_layers": False} if is_transformer(model) else {}
    model = model.clone(heads_kept=tuple(counts), **one_by_one)
    return model, {"params": unflatten_dict(smaller)}


def _out_of_stacks(params: Mapping[Path, Any]) -> dict[Path, Any]:
    """Parameters of layers under a scan as those of layers in a loop."""
    found = {}
    for path, array in params.items():
        if path[1] != "layers":
            found[path] = array
            continue
        for i, own in enumerate(array):
            found[(path[0], f"layers_{i}", *path[2:])] = own
    return found
