"""Tables from names of theirs to paths of ours, and what applies them: pure functions of arrays."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from errors import ConfigError, DataError
from models.pretrained.transforms import TRANSFORMS, Ids, Sizes

Array = np.ndarray
Block = Mapping[str, Any]


class Row(NamedTuple):
    """One tensor of theirs.

    Attributes:
        theirs: its name; {i} is the number of a layer.
        ours: the path of the parameter, or the paths of several.
        transform: a name in TRANSFORMS.
        head: what it belongs to if files may lack it, such as "pooler".
        when: a name in CONDITIONS: which models have it.
    """

    theirs: str
    ours: tuple[str, ...]
    transform: str = "same"
    head: str = ""
    when: str = ""


GATED = ("gated_relu", "gated_gelu", "swiglu")
CONDITIONS: dict[str, Callable[[Block], bool]] = {
    "": lambda block: True,
    "untied": lambda block: not block["tie_embeddings"],
    "plain": lambda block: block["activation"] not in GATED,
    "gated": lambda block: block["activation"] in GATED,
}


def rows(*lines: str, head: str = "", when: str = "", **parts: str) -> list[Row]:
    """Rows from lines "theirs ours transform", several paths with commas between.

    Args:
        parts: what {name} stands for in all lines; {i} stays.
    """
    found = []
    for line in lines:
        theirs, ours, transform = f"{line.format(i='{i}', **parts)} same".split()[:3]
        found.append(Row(theirs, tuple(ours.split(",")), transform, head, when))
    return found


class Tensors(NamedTuple):
    """The tables of a family.

    Attributes:
        rows: of all tensors.
        prefix: that a model without heads leaves out.
        ties: a name that may repeat another one; what is equal to it is passed over.
        passed_over: patterns of what holds nothing learned.
        renamed: ends of older names, and what they are called now.
        ours_alone: patterns of our parameters that have no tensor.
    """

    rows: Sequence[Row]
    prefix: str = ""
    ties: Mapping[str, str] = {}
    passed_over: Sequence[str] = ()
    renamed: Mapping[str, str] = {}
    ours_alone: Sequence[str] = ()


class Weights(NamedTuple):
    """Parameters read from tensors.

    Attributes:
        params: by path.
        names: of theirs, by the name in the table: those that were there.
        lacking: heads that were not there.
    """

    params: dict[str, Array]
    names: dict[str, str]
    lacking: list[str]


def expanded(table: Tensors, block: Block) -> list[Row]:
    """The rows that a model has, one for each layer."""
    found = []
    for row in table.rows:
        if not CONDITIONS[row.when](block):
            continue
        layers = range(depth(block, row.ours[0].split("/")[0])) if "{i}" in row.theirs else [0]
        for i in layers:
            ours = tuple(path.format(i=i) for path in row.ours)
            found.append(row._replace(theirs=row.theirs.format(i=i), ours=ours))
    return found


def depth(block: Block, side: str) -> int:
    """How many layers the encoder or the decoder of a block has."""
    return block["num_layers"] if "num_layers" in block else block[f"num_{side}_layers"]


def is_tied(table: Tensors, tensors: Mapping[str, Array]) -> bool:
    """Whether no tensor of the output differs from the embeddings."""
    outputs = [row.theirs for row in table.rows if row.when == "untied"]
    return all(name not in tensors or _repeats(table, tensors, name) for name in outputs)


def _repeats(table: Tensors, tensors: Mapping[str, Array], name: str) -> bool:
    """Whether a tensor only repeats the one that it is tied to."""
    source = table.ties.get(name, "")
    other = tensors.get(source, tensors.get(source.removeprefix(table.prefix)))
    return other is not None and np.array_equal(tensors[name], other)


def read(
    table: Tensors,
    tensors: Mapping[str, Array],
    block: Block,
    shapes: Mapping[str, tuple[int, ...]],
    ids: Ids,
) -> Weights:
    """Our parameters from their tensors.

    Args:
        block: the model, with all its options.
        shapes: of all parameters of the model, by path.

    Raises:
        DataError: names that are unknown, missing or of another shape, all in one line.
    """
    wanted = {row.theirs: row for row in expanded(table, block)}
    names, unknown = _recognised(table, tensors, wanted)
    heads = {row.head for row in wanted.values() if row.head}
    lacking = sorted(h for h in heads if not any(wanted[n].head == h for n in names))
    missing = [n for n, row in wanted.items() if n not in names and row.head not in lacking]
    sizes, params, misfits = Sizes(block["num_heads"], ids), {}, []
    for name, actual in names.items():
        row, tensor = wanted[name], tensors[actual]
        try:
            arrays = TRANSFORMS[row.transform].read(tensor, sizes)
            fits = [x.shape == shapes[path] for x, path in zip(arrays, row.ours, strict=True)]
        except (ValueError, IndexError):  # of a shape that cannot be cut so
            fits = [False]
        if not all(fits) or tensor.dtype != np.float32:
            misfits.append(f"{actual} {tensor.dtype.name}{list(tensor.shape)}")
            continue
        params |= zip(row.ours, arrays, strict=True)
    problems = {"missing": missing, "unknown": sorted(unknown), "of another shape or type": misfits}
    if any(problems.values()):
        listed = "; ".join(
            f"{what}: {', '.join(found)}" for what, found in problems.items() if found
        )
        raise DataError(f"The tensors are not those of the model that config.json names: {listed}.")
    return Weights(params, names, lacking)


def _recognised(
    table: Tensors, tensors: Mapping[str, Array], wanted: Iterable[str]
) -> tuple[dict[str, str], list[str]]:
    """Names of the table with the names that stand for them, and the names that are neither."""
    known, names, unknown = set(wanted), {}, []
    for actual in tensors:
        name = actual
        for old, new in table.renamed.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        name = next((n for n in (name, table.prefix + name) if n in known), "")
        if name and name not in names:
            names[name] = actual
        elif not (_repeats(table, tensors, actual) or _matches(actual, table.passed_over)):
            unknown.append(actual)
    return names, unknown


def write(
    table: Tensors, params: Mapping[str, Array], block: Block, ids: Ids, heads: Iterable[str] | None
) -> dict[str, Array]:
    """Their tensors from our parameters; the exact inverse of `read`.

    Args:
        params: all of the model, by path.
        heads: which heads to write, of those that the model has; None: all.

    Raises:
        ConfigError: the model has parameters that are not in the table, or lacks some that are.
    """
    wanted, sizes, tensors = expanded(table, block), Sizes(block["num_heads"], ids), {}
    needed = {path for row in wanted if not row.head for path in row.ours}
    known = {path for row in wanted for path in row.ours}
    unlike = (needed - params.keys()) | (params.keys() - known)
    if left := sorted(path for path in unlike if not _matches(path, table.ours_alone)):
        raise ConfigError(f"These parameters are not those of the family: {', '.join(left)}.")
    for row in wanted:
        if row.ours[0] not in params or (row.head and heads is not None and row.head not in heads):
            continue
        arrays = [np.asarray(params[path]) for path in row.ours]
        tensor = TRANSFORMS[row.transform].write(arrays, sizes)
        tensors[row.theirs] = np.ascontiguousarray(tensor)
    return tensors


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
