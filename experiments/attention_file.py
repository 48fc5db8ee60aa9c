"""Attention weights of one translation after another, in a file that numpy.load reads."""

import functools
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import data
from errors import ConfigError, StorageError

Array = jax.Array

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


class AttentionFile:
    """Writes beside `path` and takes its place when all went well; a context manager."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def __enter__(self) -> "AttentionFile":
        try:
            self.archive = zipfile.ZipFile(self.temporary, "w", zipfile.ZIP_DEFLATED)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            self.archive.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        except OSError as failed:
            raise self._failed(failed) from failed
        finally:
            self.temporary.unlink(missing_ok=True)

    def add(self, line: int, translator: Any, source: np.ndarray, target: np.ndarray) -> None:
        """The tokens and weights of a line of the input; target ids without EOS."""
        target = np.append(target, np.int32(data.EOS))
        arrays = attention_weights(translator.model, translator.variables, source, target)
        if not arrays:
            raise ConfigError(f"--attention {self.path}: this model has no attention.")
        for name, ids in (("source", source), ("target", target)):
            texts = [translator.tokenizer.decode([int(token)]) for token in ids[:-1]]
            arrays[name] = np.array([*texts, "</s>"])
        try:
            for name, array in arrays.items():
                with self.archive.open(f"{line}/{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"--attention {self.path}: {error.strerror or error}.")
