"""Runs as processes of this machine."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from errors import ConfigError, Preempted
from experiments.launching import machine
from experiments.launching.plan import Run
from experiments.launching.status import Board
from training.checkpoint_reader import good_steps
from training.files import storage_errors
from training.run_directory import RunDirectory
from training.signals import StopFlag

FRUITLESS = 3  # returns with code 75 in a row that saved nothing new, after which a run has failed
POLL = 0.1  # seconds


class Pool:
    """Processes of train.py, one in each place; a context manager that outlives none of them.

    Args:
        out: folder of the runs and of their logs.
        places: from machine.places().
    """

    def __init__(self, out: Path, places: Sequence[machine.Place]) -> None:
        self.out = out
        self._free = deque(places)
        self._active: dict[str, tuple[subprocess.Popen, machine.Place, Run]] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Lets the runs save and waits for them; a Ctrl-C meanwhile kills them."""
        try:
            self.stop()
            for process, _, _ in self._active.values():
                process.wait()
        finally:
            for process, _, _ in self._active.values():
                process.kill()
                process.wait()

    @property
    def free(self) -> int:
        """Places for further runs."""
        return len(self._free)

    @property
    def busy(self) -> int:
        """Runs at work."""
        return len(self._active)

    def start(self, run: Run) -> None:
        """Starts a run in a free place; what it says is added to its log."""
        place, log, command = self._free.popleft(), run.log(self.out), run.command(self.out)
        with storage_errors("write the log", log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                file.write(f"$ {shlex.join(command)}\n".encode())
                file.flush()
                process = _spawn(command, place, file)
        self._active[run.name] = (process, place, run)

    def finished(self) -> list[tuple[Run, int]]:
        """Runs that have ended since the last call, with their exit codes."""
        ended = []
        for name, (process, place, run) in list(self._active.items()):
            if (code := process.poll()) is not None:
                del self._active[name]
                self._free.append(place)
                ended.append((run, code))
        return ended

    def stop(self, name: str | None = None) -> None:
        """Asks a run, or all, to save and leave."""
        for key, (process, _, _) in self._active.items():
            if name in (None, key) and process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _spawn(command: Sequence[str], place: machine.Place, log) -> subprocess.Popen:
    """A process in a session of its own, so that Ctrl-C reaches it through us alone."""
    mine = os.sched_getaffinity(0) if place.cores else set()
    try:
        if place.cores:  # a child inherits them, before it counts them
            os.sched_setaffinity(0, place.cores)
        return subprocess.Popen(
            command,
            env={**os.environ, **place.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if mine:
            os.sched_setaffinity(0, mine)


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of this executor."""
    group.add_argument(
        "--memory", type=float, default=2.0, metavar="GB", help="of the host for a run (2)"
    )


def check(options: argparse.Namespace) -> None:
    """Refuses options that make no sense here; raises ConfigError."""
    if not options.memory > 0:
        raise ConfigError(f"--memory must be above 0, got {options.memory:g}.")
    if options.nodes > 1:
        raise ConfigError(f"--nodes ({options.nodes}) needs --executor=slurm or kubernetes.")


def execute(todo: Sequence[Run], out: Path, options: argparse.Namespace, board: Board) -> None:
    """Runs everything; what is preempted comes back behind the others.

    Raises:
        Preempted: a signal asked to stop; all runs have saved.
    """
    room = machine.places(options.jobs, options.memory, len(todo))
    print(f"{len(todo)} runs, {len(room)} at a time", file=sys.stderr)
    with StopFlag() as stop:
        run_all(todo, out, room, stop, board)
        stop.check()


def run_all(
    todo: Sequence[Run], out: Path, room: Sequence[machine.Place], stop: StopFlag, board: Board
) -> None:
    """The loop of execute(); returns when all have ended, or have been stopped."""
    queue, fruitless, told = deque(todo), Counter(), False
    saved = {run.name: newest(run, out) for run in todo}
    with Pool(out, room) as pool:
        while pool.busy or (queue and not stop.requested):
            while queue and pool.free and not stop.requested:
                pool.start(queue.popleft())
            if stop.requested and not told:
                pool.stop()
                told = True
            for run, code in pool.finished():
                if code != Preempted.exit_code or stop.requested:
                    continue
                step = newest(run, out)
                fruitless[run.name] = 0 if step != saved[run.name] else fruitless[run.name] + 1
                saved[run.name] = step
                if fruitless[run.name] < FRUITLESS:
                    queue.append(run)
            board.refresh()
            time.sleep(POLL)


def newest(run: Run, out: Path) -> int:
    """The step of a run's newest checkpoint; -1 without one."""
    return max(good_steps(RunDirectory(run.folder(out)).checkpoints), default=-1)
