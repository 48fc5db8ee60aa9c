"""Reading and writing files so that a reader never sees half of one.

Everything under a cache folder is written beside its place and renamed into it, under a
lock, so two processes that start together do the work once and neither sees the other's
unfinished files.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import DataError, StorageError

OPENERS: dict[str, Callable] = {
    "": open,
    ".gz": gzip.open,
    ".xz": lzma.open,
}  # file name ending -> how to open it


def digest(value: Any) -> str:
    """SHA-256 of a value that JSON can hold; the order of a mapping's keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turns the operating system's refusals (disk full, no permission) into one line."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"Cannot {action}: {error.strerror or error}.") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds `path`.lock while the block runs; other processes wait for it."""
    with storage_errors(f"lock {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / f"{path.name}.lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder that becomes `path` if the block succeeds, else disappears.

    `path` must not exist yet.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    with storage_errors(f"write {path}"):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            os.rename(temporary, path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Replaces a file at once; after a crash either the old or the new content is there."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    with storage_errors(f"write {path}"):
        try:
            temporary.write_bytes(content)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, which may be compressed (.gz, .xz).

    Lines end in LF or CR LF; nothing else ends one (U+2028 or a form feed is text), so that
    row numbers are those of an editor. A byte order mark at the start is dropped.

    Raises:
        DataError: bad UTF-8 or a NUL (with the row), an empty or a damaged file.
        StorageError: the file cannot be read.
    """
    opener = OPENERS.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: not a whole {path.suffix} file ({error}).") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}.") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}:{row}: not UTF-8 (byte 0x{byte:02x}).") from error
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{row}: a NUL character, which is not text.")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()  # the end of the last line, not a line
    if not lines:
        raise DataError(f"{path}: the file is empty.")
    return lines
