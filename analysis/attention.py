"""The attention weights of a model for one pair of sentences."""

import functools
from typing import Any

import jax
import numpy as np

import data
from errors import ConfigError

Array = jax.Array

MEAN = "mean of all"  # heads
STEP = 16  # tokens are padded to this times a power of 2, so that few shapes compile


@functools.partial(jax.jit, static_argnums=0)
def recorded_weights(model: Any, variables: Any, source_BS: Array, inputs_BT: Array) -> Any:
    """What each attention layer sows when the whole target is read at once."""
    _, seen = model.apply(variables, source_BS, inputs_BT, mutable=["intermediates"])
    return seen.get("intermediates", {})


def padded(ids: np.ndarray) -> np.ndarray:
    """ids as the one row of a matrix of one of a few widths."""
    width = STEP
    while width < len(ids):
        width *= 2
    row = np.full((1, width), data.PAD, np.int32)
    row[0, : len(ids)] = ids
    return row


def attention_weights(
    model: Any, variables: Any, source: np.ndarray, target: np.ndarray
) -> dict[str, np.ndarray]:
    """Weights of each layer for one pair, without padding.

    Args:
        source, target: token ids, each with EOS at the end.

    Returns:
        {path of the layer: (heads, queries, keys)}, or (layers, heads, queries, keys) where
        the layers are stacked under a scan.
    """
    inputs = np.concatenate([[data.BOS], target[:-1]])
    sown = recorded_weights(model, variables, padded(source), padded(inputs))
    lengths = {"encoder": len(source), "decoder": len(target)}
    found = {}
    for key, weights in jax.tree.leaves_with_path(sown):
        names = [str(part.key) for part in key if isinstance(part, jax.tree_util.DictKey)]
        # Self-attention of the encoder, or of the decoder, or else from the decoder across.
        across = names[0] != "encoder" and "self_attention" not in names
        num_keys = len(source) if across or names[0] == "encoder" else len(target)
        num_queries = lengths["encoder" if names[0] == "encoder" else "decoder"]
        array = np.asarray(weights, np.float32).squeeze(axis=-4)  # the batch of one
        found["/".join(names[:-1])] = array[..., :num_queries, :num_keys]
    return found


def heads_of(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(T, S) weights of each head that looks at the source, and their mean."""
    heads = {}
    for path, array in weights.items():
        if "self_attention" in path:
            continue
        stacked = array if array.ndim == 4 else array[None]
        for layer, maps_HTS in enumerate(stacked):
            name = path if array.ndim == 3 else f"{path}[{layer}]"
            heads |= {f"{name} head {h}": map_TS for h, map_TS in enumerate(maps_HTS)}
    if not heads:
        raise ConfigError("This model does not look at the source: it has no alignment.")
    return heads | {MEAN: np.mean(list(heads.values()), axis=0)}
