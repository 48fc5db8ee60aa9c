"""A run's task without its data: the same loss and the same shapes over made-up sentences.

A plan must not need the text that is yet to be bought or fetched. Nothing of the compiled step
depends on it but the shapes of a batch and the size of the vocabulary.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import data
import tasks
from data.buckets import shape_of
from errors import ConfigError

# What stands in for labelled texts that must be read.
BY_FORM = {
    "text": "entailment",
    "similarity": "similarity",
    "choice": "multiple_choice",
    "tagging": "tagging",
}
SMALL = {"num_train": 64, "num_validation": 8, "num_test": 8}


class StandIn(NamedTuple):
    """A task and the shapes of its widest batch.

    Attributes:
        task: of the class in the config, with the vocabulary of the config.
        batch: {field: jax.ShapeDtypeStruct} of the global batch.
        rows_field: the option of config.task that sets the rows of a batch.
        rows: of the batch.
        tokens: places of the batch that the model reads or writes, of the longer side.
    """

    task: tasks.Task
    batch: dict[str, Any]
    rows_field: str
    rows: int
    tokens: int


def stand_in(settings: Mapping[str, Any], vocab_size: int = 0) -> StandIn:
    """The task of checked settings on made-up text.

    Args:
        vocab_size: ids of the tokenizer; 0: what config.task.tokenizer says.

    Raises:
        ConfigError: nobody knows the vocabulary, or the settings are wrong.
    """
    block = dict(settings["task"])
    source, cutter = _source(block), block["tokenizer"]
    own = source["name"] == block["source"]["name"] and cutter["name"] in ("words", "characters")
    size = vocab_size or (0 if own else _vocabulary(cutter))
    block |= {"source": source, "tokenizer": cutter if own else {"name": "words"}}
    with tempfile.TemporaryDirectory() as folder:
        task = tasks.build(block, settings["seed"], folder)
        found = task.batch("train", 0)
    if size:
        task.vocab_size = size + len(task.tokenizer.reserved)
    if hasattr(task, "labels") and task.labels:  # as many as the model was built for
        task.labels = [str(i) for i in range(settings["model"]["num_outputs"])]
    return _widest(task, block, found)


def _vocabulary(tokenizer: Mapping[str, Any]) -> int:
    """Ids of a tokenizer's block: what it is trained to have at most, or has."""
    if tokenizer["name"] == "saved":
        return data.load_tokenizer(tokenizer["path"]).vocab_size
    size = data.TOKENIZERS[tokenizer["name"]](
        **{k: v for k, v in tokenizer.items() if k != "name"}
    ).vocab_size
    if not size:
        raise ConfigError(
            f"The vocabulary of config.task.tokenizer {tokenizer['name']!r} is in its files: say "
            "--vocab_size=N."
        )
    return size


def _source(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block of a source that a program writes, small: the config's own if it is one."""
    source = block["source"]
    kind = data.SOURCES[source["name"]]
    if "num_train" in {field.name for field in _fields(kind)}:
        return {**source, **SMALL}
    return {"name": BY_FORM[block["form"]] if "form" in block else "toy_language", **SMALL}


def _fields(kind: type) -> tuple:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _widest(task: tasks.Task, block: Mapping[str, Any], found: Mapping[str, Any]) -> StandIn:
    """Shapes of a batch of the greatest length that the options allow."""
    rows, width = found["inputs"].shape[0], found["inputs"].shape[-1]
    if "tokens_per_batch" in block:  # by length
        field, longest = "tokens_per_batch", block["max_length"]
        rows = shape_of(longest, longest, block["tokens_per_batch"]).num_rows
    elif "texts_per_batch" in block:
        field, longest, rows = "texts_per_batch", block["max_length"], block["texts_per_batch"]
    else:
        field, longest = "sequences_per_batch", width

    widths = {x.shape[-1] for x in found.values() if x.ndim > 1} if longest != width else set()

    def wide(x: Any) -> jax.ShapeDtypeStruct:
        # Both sides of a pair have widths of their own.
        inner = tuple(longest if n in widths and n > 4 else n for n in x.shape[1:])
        return jax.ShapeDtypeStruct((rows, *inner), x.dtype)

    batch = {name: wide(x) for name, x in found.items()}
    return StandIn(task, batch, field, rows, rows * batch["inputs"].shape[-1])
