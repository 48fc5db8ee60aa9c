"""Writing files so that a kill, a power cut or a full disk never leaves half of one."""

import contextlib
import csv
import errno
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from errors import StorageError

T = TypeVar("T")
# What a network file system or a tired disk says when the same work may succeed a moment later.
PASSING = (errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)
PAUSES = (0.05, 0.2, 1.0)  # seconds before the second, third and fourth attempt


def passes(error: Exception) -> bool:
    """Whether a fault may pass; TensorStore's errors are no OSErrors, but say the number."""
    if isinstance(error, OSError):
        return error.errno in PASSING
    return any(f"os_error_code='{number}'" in str(error) for number in PASSING)


def patiently(work: Callable[[], T]) -> T:
    """Does the work again, up to three times, after faults that may pass.

    The work must write all of its bytes anew: after a failed fsync the system may have dropped
    them, and a second fsync of the same file would say that all is well.

    Raises:
        OSError (or TensorStore's error): the last fault, or the first one that does not pass, such
            as a full disk.
    """
    for pause in PAUSES:
        try:
            return work()
        except Exception as error:
            if not passes(error):
                raise
        time.sleep(pause)
    return work()


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Replaces a file in one step: readers see the old content or the new, never a part.

    It is on the disk (file and folder fsynced) when this returns. Faults that may pass are
    met patiently.

    Args:
        durable: False for what may be lost in a power cut, though not in a kill.

    Raises:
        OSError: as the system reports it; an earlier file is then unchanged.
    """
    patiently(lambda: _write_atomic(path, content, durable))


def _write_atomic(path: Path, content: str | bytes, durable: bool) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        fsync_folder(path.parent)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table in one step, as write_atomic does."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomic(path, text.getvalue())


def fsync_folder(path: Path) -> None:
    """Makes renames and new names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Makes the content of a file, written by whomever, survive a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of a path."""
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def size(num_bytes: int) -> str:
    """A number of bytes for people: '31.5 MB'."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turns what the system says into one line: StorageError 'Cannot <action> <path>: ...'."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                reason += f" ({size(free_bytes(path))} free)"
        raise StorageError(f"Cannot {action} {path}: {reason}.") from error


def save_figure(path: Path, figure: Any, dpi: int) -> None:
    """Writes a Matplotlib figure in one step, as the kind of file that its name ends in.

    Raises:
        StorageError: it cannot be written; an earlier file is then unchanged.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lstrip(".").lower() or "png", dpi=dpi)
    with storage_errors("write", path):
        write_atomic(path, content.getvalue())
