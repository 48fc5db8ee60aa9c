"""Removing heads one after another, in several orders, and from the arrays of a model.

Random orders come close to learned ones (Budhraja et al. 2020), so that no curve means anything
without them. Axes: X heads, C numbers of heads that are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from analysis.head_measures import importance_sums, normalised
from analysis.heads import Heads, Layer, Path
from errors import ConfigError
from models.transformer.models import TransformerLM, TransformerSeq2Seq

# The axis of the heads in each array of a module.
AXES = {
    **{(name, "kernel"): 1 for name in ("query", "key", "value")},
    **{(name, "bias"): 0 for name in ("query", "key", "value")},
    ("out", "kernel"): 0,
}


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


def weight_norms(heads: Heads, variables: Any) -> np.ndarray:
    """|W_V W_O| (Frobenius) of each head of a Transformer: what it can write at most."""
    params, norms = flatten_dict(variables["params"]), []
    for layer in heads.layers:
        value_DHK = array_of(params, layer, "value", "kernel")
        out_HKD = array_of(params, layer, "out", "kernel")
        products_HDD = np.einsum("dhk,hke->hde", value_DHK, out_HKD)
        norms.append(np.sqrt(np.square(products_HDD).sum((1, 2))))
    return np.concatenate(norms)


def is_transformer(model: Any) -> bool:
    """Whether the heads are arrays of their own in every layer."""
    halves = [getattr(model, f"{half}_layers", "") for half in ("encoder", "decoder")]
    return isinstance(model, TransformerLM | TransformerSeq2Seq) and "recurrent" not in halves


def require_transformer(model: Any) -> None:
    """Raises ConfigError for other models."""
    if not is_transformer(model):
        raise ConfigError(
            f"Heads can be cut out of a Transformer only; this is a {type(model).__name__}."
        )


def remove_heads(model: Any, variables: Any, mask_X: np.ndarray) -> tuple[Any, dict]:
    """A smaller model without the heads where the mask is 0, and its variables.

    It computes what the whole model does under that mask. Layers of a scan become layers of a
    loop, as they are no longer alike.

    Returns:
        (model with heads_kept, {"params": ...}).

    Raises:
        ConfigError: it is no Transformer.
    """
    require_transformer(model)
    heads = Heads(model, variables)
    params = flatten_dict(variables["params"])
    smaller = _out_of_stacks(params) if model.scan_layers else dict(params)
    counts = []
    for i, layer in enumerate(heads.layers):
        kept = np.flatnonzero(mask_X[heads.layer_of_X == i])
        counts.append(len(kept))
        path = layer.path
        if layer.place is not None:
            path = (path[0], f"layers_{layer.place}", *path[2:])
        for names, axis in AXES.items():
            smaller[(*path, *names)] = np.take(np.asarray(smaller[(*path, *names)]), kept, axis)
    model = model.clone(scan_layers=False, heads_kept=tuple(counts))
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
