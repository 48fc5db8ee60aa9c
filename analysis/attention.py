"""The attention weights of a model for sentences, or for pairs of them."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import data
from errors import ConfigError

Array = jax.Array

MEAN = "mean of all"  # heads
PARTS = ("encoder", "decoder", "cross", "alignment")
ACROSS = ("cross", "alignment")  # parts that look at the source
STEP = 16  # tokens are padded to this times a power of 2, so that few shapes compile
ROWS = 16  # of a batch, at most
PLACES = 2**18  # weights of one head for a batch, at most, where it has more than one row


class Head(NamedTuple):
    """Where a head stands, counted from 0, as in the tables of a run directory.

    Attributes:
        part: "encoder" and "decoder" look at themselves, "cross" from the decoder at the
            encoder; "alignment" is the same in a model that is no Transformer.
    """

    part: str
    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.part}, layer {self.layer}, head {self.head}"


@functools.partial(jax.jit, static_argnums=0)
def recorded_weights(model: Any, variables: Any, *tokens: Array) -> Any:
    """What each attention layer sows when all tokens, (B, S) and (B, T), are read at once."""
    _, seen = model.apply(variables, *tokens, mutable=["intermediates"])
    return seen.get("intermediates", {})


def attention_weights(
    model: Any, variables: Any, source: np.ndarray | None, target: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Weights of each layer for one pair, without padding.

    Args:
        source, target: token ids, each with EOS at the end. A language model has no source; an
            encoder has that alone, as it reads it.

    Returns:
        {path of the layer: (heads, queries, keys)}, or (layers, heads, queries, keys) where
        the layers are stacked under a scan.
    """
    pair = [side for side in (source, target) if side is not None]
    [(_, found)] = attention_of_pairs(model, variables, [pair])
    return found


def attention_of_pairs(
    model: Any, variables: Any, pairs: Sequence[Sequence[np.ndarray]]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of a pair, its attention_weights), shortest pairs first.

    Those of one width are read together, in batches of one shape. For a language model, a
    pair is the target alone; for an encoder, what it reads.
    """
    is_encoder = model.kind == "encoder"
    widths = np.array([_width(max(map(len, pair))) for pair in pairs])
    for width in np.unique(widths):
        members = np.flatnonzero(widths == width)
        num_rows = max(1, min(ROWS, len(pairs), PLACES // int(width) ** 2))
        for start in range(0, len(members), num_rows):
            chosen = members[start : start + num_rows]
            tokens = [np.full((num_rows, width), data.PAD, np.int32) for _ in pairs[0]]
            for row, (*source, target) in enumerate(pairs[i] for i in chosen):
                for side_BS, ids in zip(tokens[:-1], source, strict=True):
                    side_BS[row, : len(ids)] = ids
                tokens[-1][row, : len(target)] = target if is_encoder else [data.BOS, *target[:-1]]
            if is_encoder:  # the others know padding by themselves, or never look ahead
                tokens.append((tokens[0] != data.PAD).astype(np.int32))
            layers = _by_layer(recorded_weights(model, variables, *tokens))
            for row, i in enumerate(chosen):
                yield int(i), _of_row(layers, row, len(pairs[i][0]), len(pairs[i][-1]))


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


def place_of(path: Sequence[str]) -> tuple[str, int]:
    """Part and number of an attention layer, from the path of its module.

    >>> place_of(("decoder", "layers_1", "cross_attention"))
    ('cross', 1)
    """
    parts = {"self_attention": path[0], "cross_attention": "cross"}
    numbers = [int(end) for name in path if (end := name.rpartition("_")[2]).isdigit()]
    return parts.get(path[-1], "alignment"), numbers[0] if numbers else 0


def by_head(weights: dict[str, np.ndarray]) -> dict[Head, np.ndarray]:
    """(queries, keys) weights of each head, by part, layer and head.

    Raises:
        ConfigError: there are none.
    """
    found = {}
    for path, array in weights.items():
        part, number = place_of(path.split("/"))
        stacked = array if array.ndim == 4 else array[None]
        for layer, maps_HTS in enumerate(stacked, number):
            found |= {Head(part, layer, h): map_TS for h, map_TS in enumerate(maps_HTS)}
    if not found:
        raise ConfigError("This model has no attention.")
    return {head: found[head] for head in sorted(found, key=lambda h: (PARTS.index(h[0]), h))}


def heads_across(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(T, S) weights of each head that looks at the source, by its name, and their mean.

    Raises:
        ConfigError: there are none.
    """
    heads = {str(head): map_TS for head, map_TS in by_head(weights).items() if head.part in ACROSS}
    if not heads:
        raise ConfigError("This model does not look at the source: it has no alignment.")
    return heads | {MEAN: np.mean(list(heads.values()), axis=0)}
