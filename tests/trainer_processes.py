"""train.py in processes of their own, which can be hit by a signal at a chosen place."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tasks
import train
from training.checkpoints import Checkpointer
from training.trainer import Trainer


class Hit(NamedTuple):
    """A signal that a process sends to itself.

    Attributes:
        number: of the signal; 0 is none, and the process stands still.
        phase: one of PHASES.
        count: at which entry of the phase, from 1.
        delay: seconds from there to the signal, which another thread sends; 0 is at once.
    """

    number: int
    phase: str
    count: int = 1
    delay: float = 0.0


# What a process enters when the phase begins. The first step of a process compiles.
PHASES: dict[str, tuple[Any, str]] = {
    "data": (tasks, "build"),
    "restore": (Trainer, "restore"),
    "batch": (tasks.Translation, "batch"),
    "step": (Trainer, "dispatch"),
    "save": (Checkpointer, "save"),
    "manifest": (Checkpointer, "_complete"),
    "evaluate": (Trainer, "evaluate"),
    "decode": (tasks.Translation, "evaluate"),
}


def watch(phase: str, entered: Callable[[], None]) -> None:
    """Calls entered() whenever this process, for the rest of its life, begins a phase."""
    owner, name = PHASES[phase]
    function = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        entered()
        return function(*args, **kwargs)

    setattr(owner, name, watched)


def _command(
    argv: list[str], output: str, hit: Hit | None, prepare: Callable[[], None] | None
) -> None:
    """What a process does: train.py's command line, its streams in files, perhaps a hit."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(Path(output, name), flags, 0o644), descriptor)
    sys.argv = ["train.py", *argv]
    if prepare:
        prepare()
    if hit:
        left = hit.count

        def send() -> None:
            if not hit.number:
                time.sleep(3600)
            os.kill(os.getpid(), hit.number)

        def entered() -> None:
            nonlocal left
            left -= 1
            if left == 0 and hit.delay:
                threading.Timer(hit.delay, send).start()
            elif left == 0:
                send()

        watch(hit.phase, entered)
    sys.exit(train.main(argv))


class Command:
    """train.py in a process of its own, forked from one that has done the imports.

    Args:
        hit: a signal that hits it.
        prepare: a function of a module that the process calls first.
    """

    def __init__(
        self,
        argv: list[str],
        workdir: Path,
        output: Path,
        hit: Hit | None = None,
        prepare: Callable[[], None] | None = None,
    ):
        output.mkdir(parents=True, exist_ok=True)
        self.output = output
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["train", "grain", "matplotlib.figure", __name__])
        arguments = ([*argv, f"--workdir={workdir}"], str(output), hit, prepare)
        self._process = context.Process(target=_command, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 600.0) -> int:
        """The exit code; minus the number of a signal that killed it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still running after {seconds} s: {self.stderr}")
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        return (self.output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.output / "stderr").read_text()


def run_command(argv: list[str], workdir: Path, output: Path, hit: Hit | None = None) -> Command:
    """A Command that has ended."""
    command = Command(argv, workdir, output, hit)
    command.wait()
    return command


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until something outside this process has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
