"""A folder of published weights as a model of ours, its parameters and its tokenizer.

As Hugging Face's save_pretrained() writes it: config.json, model.safetensors (or several with an
index), and tokenizer.json or vocabulary files. Everything is read where it lies and nothing is
written, so there is no copy that could be stale, and processes need not wait for each other.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import models
import registry
from data.hugging_face import HuggingFace, is_published, read_config
from data.tensor_files import digest, read_tensors
from errors import ConfigError, DataError
from models import pretrained
from trees import named_leaves

__all__ = ["Published", "digest", "is_published", "model_block", "read_folder"]


class Published(NamedTuple):
    """What a folder holds.

    Attributes:
        config: its config.json.
        block: the model's, with all options.
        model: built of it.
        weights: parameters by path; those of heads that the folder lacks are not there.
    """

    config: dict[str, Any]
    tokenizer: HuggingFace
    block: dict[str, Any]
    model: nn.Module
    weights: pretrained.Weights


def model_block(folder: Path) -> dict[str, Any]:
    """The block of a folder's model, with all options.

    No model is built, for that asks JAX for its devices: configs are read before processes are
    connected and cores become devices.

    Raises:
        DataError: the folder is not what it should be.
    """
    with _named(folder):
        return _block_and_tokenizer(folder, read_config(folder), read_tensors(folder))[0]


def read_folder(folder: Path) -> Published:
    """All that a folder holds.

    Raises:
        DataError: the folder is not what it should be.
    """
    with _named(folder):
        config, tensors = read_config(folder), read_tensors(folder)
        block, tokenizer = _block_and_tokenizer(folder, config, tensors)
        try:
            model = models.build(block, tokenizer.vocab_size)
        except ConfigError as error:
            raise DataError(f"{folder / 'config.json'}: {error}") from error
        tree = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
        shapes = {path: leaf.shape for path, leaf in named_leaves(tree).items()}
        ids = pretrained.Ids(tokenizer.theirs, tokenizer.copies)
        weights = pretrained.family_of(config).read(tensors, block, shapes, ids)
        return Published(config, tokenizer, block, model, weights)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Lets errors say in which of several folders something is wrong."""
    try:
        yield
    except DataError as error:
        if str(folder) in str(error):
            raise
        raise DataError(f"{folder}: {error}") from error


def _block_and_tokenizer(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], HuggingFace]:
    family = pretrained.family_of(config)
    tokenizer = HuggingFace.from_folder(folder, config)
    block = family.block(config, tensors) | {"unwritten": list(tokenizer.copies)}
    target = models.MODELS[block["name"]]
    return registry.with_defaults(target, block, ["vocab_size"]), tokenizer
