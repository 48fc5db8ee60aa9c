"""Arrays from safetensors files and back; no file that could run a program is ever opened."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from errors import DataError

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
OTHERS = {"I64": np.int64, "I32": np.int32, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a folder: of one file, or of those that an index names.

    Floats of any width become float32, which holds them all; integers stay.

    Raises:
        DataError: a file is missing, damaged, a pickle, or holds what cannot be a weight.
    """
    tensors: dict[str, np.ndarray] = {}
    files, places = _files(folder)
    for path in files:
        found = read_file(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise DataError(f"{path}: tensor {twice[0]} stands in another file, too.")
        tensors |= found
    if places is not None:
        _check_index(folder / INDEX, places, tensors)
    return tensors


def digest(folder: Path) -> str:
    """SHA-256 over the names and the bytes of the files that read_tensors reads.

    Raises:
        DataError: a file is missing, or a pickle.
    """
    found = hashlib.sha256()
    for path in _files(folder)[0]:
        found.update(f"{path.name} ".encode())
        try:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    return found.hexdigest()


def refuse_pickle(path: Path) -> None:
    """Raises DataError for a file that is a program or may hold one."""
    if path.suffix in PICKLES:
        raise DataError(
            f"{path}: files of this kind can run programs when they are read, so this one is not. "
            "Save the model with save_pretrained(FOLDER), which writes safetensors."
        )


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file, by name; raises DataError."""
    try:
        found = safetensors.deserialize(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except safetensors.SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise DataError(f"{path}: damaged ({reason}).") from error
    tensors = {}
    for name, content in found:
        if name in tensors:
            raise DataError(f"{path}: tensor {name} stands there twice.")
        tensors[name] = _array(path, name, content)
    return tensors


def _array(path: Path, name: str, content: Mapping[str, Any]) -> np.ndarray:
    kind = content["dtype"]
    if kind not in FLOATS and kind not in OTHERS:
        known = ", ".join((*FLOATS, *OTHERS))
        raise DataError(f"{path}: tensor {name} has the type {kind}; known are {known}.")
    dtype = np.dtype(FLOATS.get(kind) or OTHERS[kind])
    array = np.frombuffer(content["data"], dtype).reshape(content["shape"])
    if kind in OTHERS:
        return array
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{path}: tensor {name} has values that are not finite.")
    return array


def _files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """The files with the tensors of a folder, and in which of them the index says each is.

    Raises:
        DataError: there are none, or one is not safetensors.
    """
    refuse_pickle(folder)
    if (folder / INDEX).is_file():
        return _listed(folder)
    if not (folder / FILE).is_file():
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        for name in names:
            refuse_pickle(folder / name)
        raise DataError(f"{folder}: there is neither {FILE} nor {INDEX}.")
    return [folder / FILE], None


def _listed(folder: Path) -> tuple[list[Path], Mapping[str, str]]:
    path = folder / INDEX
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        files = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}).") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise DataError(f"{path}: {file!r} is no name of a file in the folder.")
        refuse_pickle(folder / file)
    return [folder / file for file in files], places


def _check_index(path: Path, listed: Iterable[str], found: Iterable[str]) -> None:
    for name in sorted(set(listed) ^ set(found)):
        where = "in no file" if name in listed else "not in the index"
        raise DataError(f"{path}: tensor {name} is {where}.")


def write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors into a new file; raises OSError."""
    path.write_bytes(safetensors.numpy.save(dict(tensors), metadata={"format": "pt"}))
