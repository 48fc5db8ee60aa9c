"""The attention weights of a model for pairs of sentences."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

import data
from errors import ConfigError

Array = jax.Array

MEAN = "mean of all"  # heads
STEP = 16  # tokens are padded to this times a power of 2, so that few shapes compile
ROWS = 16  # of a batch, at most
PLACES = 2**18  # weights of one head for a batch, at most, where it has more than one row


@functools.partial(jax.jit, static_argnums=0)
def recorded_weights(model: Any, variables: Any, source_BS: Array, inputs_BT: Array) -> Any:
    """What each attention layer sows when the whole target is read at once."""
    _, seen = model.apply(variables, source_BS, inputs_BT, mutable=["intermediates"])
    return seen.get("intermediates", {})


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
    [(_, found)] = attention_of_pairs(model, variables, [(source, target)])
    return found


def attention_of_pairs(
    model: Any, variables: Any, pairs: Sequence[Sequence[np.ndarray]]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of a pair, its attention_weights), shortest pairs first.

    Those of one width are read together, in batches of one shape.
    """
    widths = np.array([_width(max(map(len, pair))) for pair in pairs])
    for width in np.unique(widths):
        members = np.flatnonzero(widths == width)
        num_rows = max(1, min(ROWS, len(pairs), PLACES // int(width) ** 2))
        for start in range(0, len(members), num_rows):
            chosen = members[start : start + num_rows]
            source_BS = np.full((num_rows, width), data.PAD, np.int32)
            inputs_BT = np.full((num_rows, width), data.PAD, np.int32)
            for row, (source, target) in enumerate(pairs[i] for i in chosen):
                source_BS[row, : len(source)] = source
                inputs_BT[row, : len(target)] = [data.BOS, *target[:-1]]
            layers = _by_layer(recorded_weights(model, variables, source_BS, inputs_BT))
            for row, i in enumerate(chosen):
                yield int(i), _of_row(layers, row, *map(len, pairs[i]))


def _width(length: int) -> int:
    """STEP times the power of 2 that holds so many tokens."""
    width = STEP
    while width < length:
        width *= 2
    return width


def _by_layer(sown: Any) -> dict[str, np.ndarray]:
    """{path of the layer: (..., batch, heads, queries, keys)}."""
    found = {}
    for key, weights in jax.tree.leaves_with_path(sown):
        names = [str(part.key) for part in key if isinstance(part, jax.tree_util.DictKey)]
        if names[-1] == "weights":  # a pointer sows its p_gen
            found["/".join(names[:-1])] = np.asarray(weights, np.float32)
    return found


def _of_row(
    layers: dict[str, np.ndarray], row: int, num_source: int, num_target: int
) -> dict[str, np.ndarray]:
    """The weights of one pair of a batch, without padding."""
    found = {}
    for path, array in layers.items():
        names = path.split("/")
        # Self-attention of the encoder, or of the decoder, or else from the decoder across.
        num_queries = num_source if names[0] == "encoder" else num_target
        num_keys = num_queries if "self_attention" in names else num_source
        found[path] = array[..., row, :, :num_queries, :num_keys]
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
