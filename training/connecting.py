"""How the processes of a run come together, and how they part.

python train.py ... --coordinator=auto                                        Slurm, Open MPI, TPU
python train.py ... --coordinator=HOST:PORT --num_processes=N --process_id=I  by hand
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax

from errors import ConfigError, SeqlabError, Unreachable
from training import distributed, gpus
from training.peers import LOST, SOON, Peers
from training.places import place_of

_said = {"text": ""}
_kept: list[Any] = []  # what C calls must outlive Python's last reference


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that name the other processes of a run."""
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, or auto, of a cluster")
    parser.add_argument("--num_processes", type=int, help="of the run, with HOST:PORT")
    parser.add_argument("--process_id", type=int, help="this one, from 0, with HOST:PORT")
    parser.add_argument(
        "--coordinator_timeout", type=int, default=120, help="seconds until all must be there"
    )


@contextlib.contextmanager
def connected(options: argparse.Namespace) -> Iterator[None]:
    """Joins the processes that the flags name, before JAX's first operation.

    An error in the block is what this process leaves with; see leave().

    Raises:
        ConfigError: flags that are wrong, or no cluster.
        Unreachable: processes that do not come in time.
    """
    if not _wanted(options):
        yield
        return
    peers = _connect(options)
    try:
        yield
    except Exception as error:
        _said["text"] = (str(error).splitlines() or [""])[0][:300]
        if isinstance(error, SeqlabError) and not options.debug:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):  # most likely another process is gone
            peers.failed()  # and while this one waits, the watch says which
            time.sleep(2 * SOON)
        traceback.print_exc()
        _exit(leave(getattr(error, "exit_code", 1)))


def leave(code: int) -> int:
    """Leaves a run of many processes with an exit code; returns it if all have come to an end.

    Otherwise some are lost or held up, and a process that waited for them would hang: this
    one ends at once.
    """
    if distributed.peers is None:
        return code
    others = distributed.peers.leave(code, _said["text"])
    if others is not None and code != 1:
        distributed.peers.close()
        jax.distributed.shutdown()
        return code or others  # what one failed in, all have
    _exit(code)
    return code


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wanted(options: argparse.Namespace) -> bool:
    """Whether there is a coordinator; refuses flags that do not go together."""
    address, count, mine = options.coordinator, options.num_processes, options.process_id
    if address is None and (count is not None or mine is not None):
        raise ConfigError("--num_processes and --process_id need --coordinator=HOST:PORT.")
    if address in (None, "auto"):
        if address and (count is not None or mine is not None):
            raise ConfigError("--coordinator=auto finds --num_processes and --process_id itself.")
        return address is not None
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"--coordinator must be auto or HOST:PORT, got {address!r}.")
    if count is None or mine is None:
        raise ConfigError("--coordinator=HOST:PORT needs --num_processes and --process_id.")
    if not 0 <= mine < count:
        raise ConfigError(
            f"--process_id must be from 0 to --num_processes - 1 ({count - 1}), got {mine}."
        )
    return True


def _connect(options: argparse.Namespace) -> Peers:
    # Its handler would swallow SIGTERM; training/peers.py agrees on the step for every signal.
    jax.config.update("jax_enable_preemption_service", False)
    # Programs that wait for another process hold a thread of XLA's each.
    os.environ.setdefault("NPROC", str(max(8, 2 * (os.cpu_count() or 1))))
    seconds = options.coordinator_timeout
    if options.coordinator == "auto":
        given: dict[str, Any] = {"local_device_ids": gpus.own()}
    else:
        given = {
            "coordinator_address": options.coordinator,
            "num_processes": options.num_processes,
            "process_id": options.process_id,
            "cluster_detection_method": "deactivate",
        }
        if options.process_id:
            _await_coordinator(options.coordinator, seconds)
    with _quiet_stderr() as stderr:
        _on_abort(f"error: Not all processes came within {seconds} s.\n", LOST, stderr)
        try:
            jax.distributed.initialize(
                **given, initialization_timeout=seconds, shutdown_timeout_seconds=30
            )
        except Exception as error:
            raise _refused(options.coordinator, error) from error
    state = jax._src.distributed.global_state
    address = state.coordinator_address or ""
    gone = f"error: Process 0 at {address} is gone, which holds all together.\n"
    _on_abort(gone, LOST, 2, address)
    main = threading.main_thread().ident or 0
    distributed.peers = Peers(
        _ClientStore(),
        state.process_id,
        state.num_processes,
        _end,
        where=lambda: place_of(main),
        home=f" at {address}",
    )
    distributed.peers.start()
    return distributed.peers


def _refused(coordinator: str, error: Exception) -> SeqlabError:
    """What JAX's error means: the flags are wrong, or the others may come another time."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    unheard = isinstance(error, jax.errors.JaxRuntimeError) and "INVALID_ARGUMENT" not in line
    if unheard or isinstance(error, OSError) or line.startswith("Retry failed"):  # of Kubernetes
        return Unreachable(f"--coordinator={coordinator}: {line}")
    if "should be defined" in line or "must be defined" in line:
        line = "No cluster was found (Slurm, Open MPI, Kubernetes or TPUs)."
    hint = "Give --coordinator=HOST:PORT --num_processes=N --process_id=I."
    return ConfigError(f"--coordinator={coordinator}: {line} {hint}")


def _end(code: int, sentence: str) -> None:
    os.write(2, f"error: {sentence}\n".encode())
    _exit(code)


def _await_coordinator(address: str, seconds: float) -> None:
    """Waits until process 0 listens; JAX would abort with pages instead of a line."""
    deadline = time.monotonic() + seconds
    while not _answers(address):
        if time.monotonic() > deadline:
            raise Unreachable(f"Nothing answers at --coordinator={address} within {seconds} s.")
        time.sleep(0.2)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[int]:
    """Drops what C code prints; gives the descriptor of what standard error was."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield kept
    finally:
        os.dup2(kept, 2)
        os.close(nothing)


def _on_abort(line: str, code: int, stderr: int, unless: str = "") -> None:
    """Says a line where JAX's client aborts the process, from a thread of its own and without
    asking Python; `unless` is an address that, if it answers, was not the reason."""

    def handler(number: int) -> None:
        if distributed.peers and distributed.peers.left:  # it has said what there is to say
            os._exit(distributed.peers.left[0])
        if not (unless and _answers(unless)):
            os.write(stderr, line.encode())
            os._exit(code)

    handler_type = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _kept.append(handler_type(handler))
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _kept[-1])


class _ClientStore:
    """The texts that JAX's coordinator keeps."""

    def put(self, key: str, text: str) -> None:
        distributed.client().key_value_set(f"peers/{key}", text, allow_overwrite=True)

    def all(self, prefix: str) -> list[str]:
        return [text for _, text in distributed.client().key_value_dir_get(f"peers/{prefix}")]
