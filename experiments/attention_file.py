"""Attention weights of one translation after another, in a file that numpy.load reads."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import data
from analysis.attention import attention_weights
from errors import ConfigError, StorageError


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
