"""Puts the parameters of trained models into a larger one.

A language model of the source side becomes the encoder of an encoder-decoder, one of the target
side the decoder (Ramachandran 2017); any model becomes the inner one of a classifier, or goes on
as it is.
Pure functions over trees of arrays: nothing here reads files.
"""

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from errors import ConfigError
from trees import named_leaves

Tree = Mapping[str, Any]

PARTS = {
    "encoder": ("encoder*/*",),
    "decoder": ("decoder/*", "attention_decoder/*", "readout/*"),
    "inner": ("inner/*",),
    "model": ("*",),
}
WHOLE = {"inner": "inner/", "model": ""}  # where a model of any kind goes as it is


class Match(NamedTuple):
    """What goes where; names are paths such as "decoder/norm/scale".

    Attributes:
        moves: (part, its name, name in the model), in the order in which they are filled.
        matched: names filled from a language model of the same shape.
        reshaped: names whose first rows and columns are filled, where the model is wider.
        missing: names of a joined part that keep their fresh values.
        unused: "part: name" of what finds no place.
    """

    moves: list[tuple[str, str, str]]
    matched: list[str]
    reshaped: list[str]
    missing: list[str]
    unused: list[str]

    def summary(self) -> str:
        """One line for each group."""
        groups = (
            ("filled from trained models", self.matched),
            ("filled in their first rows and columns", self.reshaped),
            ("fresh", self.missing),
            ("without a place", self.unused),
        )
        lines = [f"{len(names)} parameters {what}: {_shortened(names)}" for what, names in groups]
        return "\n".join(lines)


def _shortened(names: Sequence[str]) -> str:
    """Some names as a list."""
    return f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" or "-"


def places(part: str, known: Iterable[str]) -> dict[str, str]:
    """What the names of a language model begin with, and with what in a part of the model.

    A Transformer's decoder becomes either part. The layers of a recurrent stack become the
    forward layers of the encoder, or the decoder's, the one that attends among them: the
    first where the context goes into the cell, else the last.

    Args:
        known: the names of the model.
    """
    if part in WHOLE:
        return {"": WHOLE[part]}
    known = list(known)

    def has(beginning: str) -> bool:
        return any(name.startswith(beginning) for name in known)

    if part == "encoder":
        numbered = (f"encoder_{i}/" for i in itertools.count())
        layers = [
            f"{layer}forward/" if has(f"{layer}forward/") else layer
            for layer in itertools.takewhile(has, numbered)
        ]
        found = {"decoder/": "encoder/", "embed/": "embed/"}
    else:
        layers = list(itertools.takewhile(has, (f"decoder/layers_{i}/" for i in itertools.count())))
        if has("attention_decoder/"):
            top = len(layers) if has("attention_decoder/combine") else 0
            layers.insert(top, "attention_decoder/")
        found = {f"{name}/": f"{name}/" for name in ("decoder", "embed", "readout", "output")}
        found["logits_bias"] = "logits_bias"
    return found | {f"stack/layers_{i}/": layer for i, layer in enumerate(layers)}


def match(fresh: Any, parts: Mapping[str, Tree], allow: Sequence[str] = ()) -> Match:
    """Finds the place of each parameter of language models in an encoder-decoder.

    Where both parts bring embeddings, those of the decoder stay: they are the output layer too.

    Args:
        fresh: parameters of the encoder-decoder, unboxed, or their shapes.
        parts: parameters of a trained model for "encoder", "decoder" or both, or for "inner"
            or "model", or their shapes.
        allow: patterns (fnmatch) of names that may be missing or unused.

    Raises:
        ConfigError: names that are missing, unused or of another shape, and not allowed.
    """
    shapes = {name: leaf.shape for name, leaf in named_leaves(fresh).items()}
    moves, matched, reshaped, unused = [], set(), set(), []
    for part in (part for part in PARTS if part in parts):  # of two embeddings the last stays
        prefixes = places(part, shapes)
        for name, leaf in named_leaves(parts[part]).items():
            start = next((start for start in prefixes if name.startswith(start)), "?")
            target = prefixes.get(start, "?") + name.removeprefix(start)
            if target not in shapes or not _fits(leaf.shape, shapes[target]):
                unused.append(f"{part}: {name}")
                continue
            (matched if leaf.shape == shapes[target] else reshaped).add(target)
            moves.append((part, name, target))
    wanted = [pattern for part in parts for pattern in PARTS[part]]
    missing = [n for n in shapes if _any(n, wanted) and n not in matched | reshaped]
    wrong = [n for n in missing if not _any(n, allow)]
    wrong += [n for n in unused if not _any(n.split(": ")[1], allow)]
    if wrong:
        raise ConfigError(
            f"config.init_from: {len(wrong)} parameters have no counterpart: "
            f"{_shortened(wrong)}. Choose runs of the same sizes, or allow them by "
            "patterns in config.init_from.allow."
        )
    return Match(moves, sorted(matched), sorted(reshaped), missing, unused)


def fill(fresh: Any, parts: Mapping[str, Tree], found: Match) -> Any:
    """The fresh parameters with those of the language models in their places."""
    filled = {name: np.asarray(leaf) for name, leaf in named_leaves(fresh).items()}
    arrays = {part: named_leaves(tree) for part, tree in parts.items()}
    for part, name, target in found.moves:
        array = arrays[part][name]
        filled[target] = filled[target].copy()
        filled[target][tuple(slice(0, size) for size in array.shape)] = array
    return jax.tree.unflatten(jax.tree.structure(fresh), list(filled.values()))


def _fits(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    return len(shape) == len(into) and all(np.less_equal(shape, into))


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
