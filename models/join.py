"""Puts the parameters of trained language models into an encoder-decoder (Ramachandran 2017).

A language model of the source side becomes the encoder, one of the target side the decoder.
Pure functions over trees of arrays: nothing here reads files.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from errors import ConfigError

Tree = Mapping[str, Any]

# (pattern of a language model's name, its place in the part) for each part of the model. The
# places are tried in order; the first that the model has is taken.
PLACES: dict[str, list[tuple[str, str]]] = {
    "encoder": [
        (r"decoder/(.*)", r"encoder/\1"),
        (r"stack/layers_(\d+)/(.*)", r"encoder_\1/forward/\2"),
        (r"embed/(.*)", r"embed/\1"),
    ],
    "decoder": [
        (r"decoder/(.*)", r"decoder/\1"),
        (r"stack/layers_0/(.*)", r"attention_decoder/\1"),
        (r"stack/layers_(\d+)/(.*)", r"decoder/layers_\1/\2"),
        (r"(embed|readout|output)/(.*)", r"\1/\2"),
    ],
}
PARTS = {"encoder": ("encoder*/*",), "decoder": ("decoder/*", "attention_decoder/*", "readout/*")}


class Joined(NamedTuple):
    """The parameters, and how they came about; names are paths such as "decoder/norm/scale".

    Attributes:
        params: the tree of the model.
        matched: names filled from a language model of the same shape.
        reshaped: names whose first rows and columns were filled, where the model is wider.
        missing: names of a joined part that keep their fresh values.
        unused: "part: name" of what found no place.
    """

    params: Any
    matched: list[str]
    reshaped: list[str]
    missing: list[str]
    unused: list[str]

    def summary(self) -> str:
        """One line for each group."""
        groups = (
            ("filled from language models", self.matched),
            ("filled in their first rows and columns", self.reshaped),
            ("fresh", self.missing),
            ("without a place", self.unused),
        )
        lines = [f"{len(names)} parameters {what}: {_shortened(names)}" for what, names in groups]
        return "\n".join(lines)


def _shortened(names: Sequence[str]) -> str:
    """Some names as a list."""
    return f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" or "-"


def names_of(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def place_of(name: str, part: str, known: Mapping[str, Any], has_attention: bool) -> str | None:
    """Where a language model's parameter goes in a part of the model, or None."""
    for pattern, place in PLACES[part]:
        found = re.fullmatch(pattern, name)
        if not found:
            continue
        if part == "decoder" and has_attention and pattern.startswith(r"stack/layers_(\d"):
            place = rf"decoder/layers_{int(found.group(1)) - 1}/\2"
        target = found.expand(place)
        if target in known:
            return target
    return None


def join(fresh: Any, parts: Mapping[str, Tree], allow: Sequence[str] = ()) -> Joined:
    """Fills an encoder-decoder's fresh parameters from language models.

    Where both parts bring embeddings, those of the decoder stay: they are the output layer too.

    Args:
        fresh: parameters of the encoder-decoder, unboxed.
        parts: parameters of a language model for "encoder", "decoder" or both.
        allow: patterns (fnmatch) of names that may be missing or unused.

    Raises:
        ConfigError: names that are missing, unused or of another shape, and not allowed.
    """
    filled = {name: np.asarray(leaf) for name, leaf in names_of(fresh).items()}
    has_attention = any(name.startswith("attention_decoder/") for name in filled)
    matched, reshaped, unused = set(), set(), []
    for part in (part for part in PLACES if part in parts):  # of two embeddings the last stays
        for name, array in names_of(parts[part]).items():
            target = place_of(name, part, filled, has_attention)
            if target is None or not _fits(array, filled[target]):
                unused.append(f"{part}: {name}")
                continue
            same = array.shape == filled[target].shape
            (matched if same else reshaped).add(target)
            corner = tuple(slice(0, size) for size in array.shape)
            filled[target] = filled[target].copy()
            filled[target][corner] = array
    wanted = [pattern for part in parts for pattern in PARTS[part]]
    missing = [n for n in filled if _any(n, wanted) and n not in matched | reshaped]
    wrong = [n for n in missing if not _any(n, allow)]
    wrong += [n for n in unused if not _any(n.split(": ")[1], allow)]
    if wrong:
        raise ConfigError(
            f"config.init_from: {len(wrong)} parameters have no counterpart: "
            f"{_shortened(wrong)}. Choose runs of the same sizes, or allow them by "
            "patterns in config.init_from.allow."
        )
    params = jax.tree.unflatten(jax.tree.structure(fresh), list(filled.values()))
    return Joined(params, sorted(matched), sorted(reshaped), missing, unused)


def _fits(array: Any, into: Any) -> bool:
    return array.ndim == into.ndim and all(np.less_equal(array.shape, into.shape))


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
