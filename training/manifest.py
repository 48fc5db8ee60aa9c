"""What a checkpoint must contain, written last: its presence says that a save was whole.

Orbax writes a checkpoint atomically but does not notice a byte that changed later, so the
manifest holds a digest of every array, of every file of arrays, and of itself. The digests of
arrays say that the values are right, whatever wrote and read them; those of files keep damaged
bytes away from Orbax and TensorStore, which report them late, at length, or not at all.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from errors import StorageError
from training.files import patiently, write_atomic

FILE = "manifest.json"
FORMAT = 1


class Damaged(Exception):
    """A checkpoint is not what its manifest says, or has none; the text says how."""


@dataclasses.dataclass(frozen=True)
class ArrayInfo:
    """Shape, dtype and digest of one array, as it is on the host, whole."""

    shape: tuple[int, ...]
    dtype: str
    digest: str

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "ArrayInfo":
        """Describes an array; the digest covers its name, dtype, shape and bytes.

        It does not depend on how the array is spread over devices.
        """
        shape, dtype = tuple(map(int, array.shape)), array.dtype.name
        digest = hashlib.sha256(json.dumps([name, dtype, shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return cls(shape, dtype, digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a checkpoint besides the values of its arrays.

    Attributes:
        step: number of updates done.
        parent_step: the checkpoint from which this process started, if any.
        arrays: one entry for each array, by its path in the state, such as "params/out/bias".
        files: digests of the files with the arrays, by their path in the checkpoint.
        meta: the caller's JSON values (host counters and the like).
        fingerprint: digests of configuration, data, tokenizer, by name.
        provenance: versions, commit, time of the save.
    """

    step: int
    parent_step: int | None
    arrays: Mapping[str, ArrayInfo]
    files: Mapping[str, str]
    meta: dict[str, Any]
    fingerprint: Mapping[str, str]
    provenance: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Writes the manifest durably, in one step.

        Raises:
            OSError: as the system reports it.
        """
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        content["digest"] = _digest(content)
        write_atomic(folder / FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads and checks the manifest of the checkpoint in a folder named by its step.

        Raises:
            Damaged: it is missing, unreadable, altered or of another step.
            StorageError: it is of a format that this program does not know.
        """
        try:
            content = json.loads(patiently(lambda: (folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise Damaged(f"{FILE} is missing") from None
        except (OSError, ValueError, RecursionError) as error:
            raise Damaged(f"{FILE} cannot be read ({_line(error)})") from None
        if not isinstance(content, dict) or content.pop("digest", None) != _digest(content):
            raise Damaged(f"{FILE} was altered: its digest does not match")
        if (found := content.pop("format")) != FORMAT:
            raise StorageError(
                f"Cannot read {folder / FILE}: format {found}, this program knows {FORMAT}."
            )
        if str(content["step"]) != folder.name:
            raise Damaged(f"{FILE} is that of step {content['step']}")
        arrays = {
            name: ArrayInfo(tuple(info["shape"]), info["dtype"], info["digest"])
            for name, info in content.pop("arrays").items()
        }
        return cls(arrays=arrays, **content)

    def verify_files(self, folder: Path) -> None:
        """Compares the files in a checkpoint's folder with what was saved.

        Raises:
            Damaged: naming the first file that differs.
        """
        for name, expected in self.files.items():
            try:
                found = patiently(functools.partial(file_digest, folder / name))
            except FileNotFoundError:
                raise Damaged(f"{name} is missing") from None
            except OSError as error:
                raise Damaged(f"{name} cannot be read ({error.strerror})") from None
            if found != expected:
                raise Damaged(f"{name} was altered: its digest does not match")

    def verify_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Compares arrays, all or some of the checkpoint's, with what was saved.

        Raises:
            Damaged: naming the first array that differs.
        """
        for name, array in arrays.items():
            info, expected = ArrayInfo.of(name, array), self.arrays[name]
            if (info.shape, info.dtype) != (expected.shape, expected.dtype):
                raise Damaged(
                    f"array {name!r} is {info.dtype}{list(info.shape)} instead of "
                    f"{expected.dtype}{list(expected.shape)}"
                )
            if info.digest != expected.digest:
                raise Damaged(f"the values of array {name!r} were altered")


def file_digests(folder: Path, item: str) -> dict[str, str]:
    """Digests of all files below folder/item, by their path in the folder."""
    files = sorted(path for path in (folder / item).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    # Through JSON once, so that tuples and lists, int and string keys give the same digest
    # before a write and after a read.
    canonical = json.loads(json.dumps(content))
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
