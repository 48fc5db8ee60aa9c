"""The folder of a run: who holds it, what happened to it, and with what it was made."""

import datetime
import fcntl
import functools
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, DataError, StorageError
from training.files import patiently, storage_errors, write_atomic

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
LOCK, JOURNAL, CONFIG, ENVIRONMENT, RESULT = (
    "lock",
    "journal.jsonl",
    "config.json",
    "environment.json",
    "result.json",
)


class RunDirectory:
    """All records of one run. Making the object touches nothing.

    Args:
        path: the folder; made by lock() if it is not there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        self._lock: int | None = None
        self._writing = threading.Lock()  # saves are journalled from another thread

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self / JOURNAL).is_file()

    def check(self) -> None:
        """Refuses a path that holds something else than a run; changes nothing.

        Raises:
            ConfigError: it is a file, or a folder with other things in it.
            StorageError: it cannot be read.
        """
        with storage_errors("read run directory", self.path):
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"--workdir {self.path} is a file. Choose another folder.")
            others = set(os.listdir(self.path)) - {LOCK} if self.path.exists() else set()
        if others and not self.exists:
            raise ConfigError(
                f"--workdir {self.path} is neither empty nor a run directory (it has "
                f"{min(others)!r} but no {JOURNAL}). Choose another folder."
            )

    def lock(self) -> "RunDirectory":
        """Makes the folder if need be and keeps other trainers out until unlock() or exit.

        Returns:
            self, a context manager that unlocks.

        Raises:
            ConfigError: another process holds it, or it is not a run directory.
            StorageError: it cannot be made or written.
        """
        self.check()
        with storage_errors("write to run directory", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise ConfigError(
                    f"Run directory {self.path} is in use by {self._holder()}. "
                    "Stop that process or choose another --workdir."
                ) from None
            except OSError:
                os.close(descriptor)
                raise
            self._lock = descriptor
            me = {"pid": os.getpid(), "host": socket.gethostname(), "time": now()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me).encode(), 0)
        return self

    def unlock(self) -> None:
        """Lets others in; does nothing if the lock is not held."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            # Unlocking, and not only closing, also frees copies that forked children hold.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.unlock()

    def journal(self, event: str, **fields: Any) -> None:
        """Adds a line to the journal, durably: {"time": ..., "event": ..., **fields}.

        Raises:
            StorageError: it cannot be written.
        """
        line = json.dumps({"time": now(), "event": event, **fields}) + "\n"
        with self._writing, storage_errors("write", self / JOURNAL):
            patiently(lambda: self._append(line))

    def _append(self, line: str) -> None:
        """Adds a line to the journal, or leaves it as it was."""
        with open(self / JOURNAL, "ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_with_newline(file):
                line = "\n" + line  # after a line that a kill or a full disk cut short
            try:
                left = memoryview(line.encode())
                while left:  # a disk that is nearly full takes a part
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise

    def read_journal(self) -> list[dict[str, Any]]:
        """The journal's lines, oldest first, without those that were cut short."""
        with storage_errors("read", self / JOURNAL):
            text = (self / JOURNAL).read_text(encoding="utf-8", errors="replace")
        entries = []
        for line in text.splitlines():
            try:
                entries.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
        return entries

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved config as JSON with sorted keys, in one step."""
        self._write(CONFIG, config)

    def read_config(self) -> dict[str, Any] | None:
        """The config with which the run was started, or None before that."""
        return self._read(CONFIG)

    def write_environment(self) -> dict[str, Any]:
        """Writes and returns what this process runs on: see environment()."""
        found = environment()
        self._write(ENVIRONMENT, found)
        return found

    def read_environment(self) -> dict[str, Any] | None:
        """What the last process of the run ran on, or None before that."""
        return self._read(ENVIRONMENT)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the run as finished, with its final scores."""
        self._write(RESULT, result)

    def result(self) -> dict[str, Any] | None:
        """The final scores, or None while the run is not finished."""
        return self._read(RESULT)

    def is_finished(self, num_steps: int) -> bool:
        """Whether the run has its final scores after so many steps, or more.

        Raises:
            DataError: result.json is not what finish() writes.
        """
        found = self.result()
        if found is None:
            return False
        if not isinstance(found, dict) or type(found.get("num_steps")) is not int:
            raise DataError(
                f"{self / RESULT} is damaged: it does not say num_steps. Remove it, and the run "
                "takes its final scores again."
            )
        return found["num_steps"] >= num_steps

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        with storage_errors("write", self / name):
            write_atomic(self / name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with storage_errors("read", self / name):
                return json.loads((self / name).read_text(encoding="utf-8"))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self / name} is damaged: {str(error).splitlines()[0]}.") from error

    def holder(self) -> dict[str, Any] | None:
        """Pid, host and time of the process that is at work here, or None.

        One of this host is looked for: a process that was killed has left its name. Asking for
        the lock itself could keep a trainer out that starts at this moment.
        """
        try:
            said = json.loads((self / LOCK).read_text())
            found = {name: said[name] for name in ("pid", "host", "time")}
            if found["host"] == socket.gethostname():
                os.kill(found["pid"], 0)
            return found
        except PermissionError:
            return found  # it lives, and is another user's
        except (OSError, ValueError, KeyError, TypeError):  # of another program, or cut short
            return None

    def _holder(self) -> str:
        for _ in range(10):  # the holder writes its name just after it has taken the lock
            if holder := self.holder():
                return f"process {holder['pid']} on {holder['host']} since {holder['time']}"
            time.sleep(0.05)
        return "another process"


@functools.cache
def provenance() -> dict[str, Any]:
    """Versions of Python and of the packages that decide results, and the commit.

    Returns:
        {"versions": {name: version}, "commit": hash or None, "dirty": bool or None}
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    status = _git("status", "--porcelain")
    return {
        "versions": versions,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def environment() -> dict[str, Any]:
    """provenance() and the machine: host, cores, platform, devices, argv, time."""
    import jax  # here, because most commands that read a run directory do not need it

    return {
        **provenance(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "num_processes": jax.process_count(),
        "argv": sys.argv,
        "time": now(),
    }


def _git(*args: str) -> str | None:
    """Output of a git command about the folder of this code; None outside a checkout."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", here, *args], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _ends_with_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def now() -> str:
    """Local time with its offset from UTC, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
