"""Where the time of a run goes: every second of the wall clock, over all its processes.

| phase | what the main thread does |
| --- | --- |
| start | imports, preparing data, building; all before the state is there |
| compile | tracing and compiling, or reading what was compiled before, in whatever phase |
| restore | reading and verifying a checkpoint, or making the first state |
| data | waiting for a batch; a batch made while the devices work costs nothing |
| step | training: starting steps and waiting for them |
| evaluation | validation, final scores and samples |
| save | copying the state to the host, waiting for the save before; writing goes on beside steps |
| lost | work since the restored checkpoint of a process that was killed: it is done again |
| down | between the last that was heard of a process and the start of the next one |

The goodput of a run is the share of `step`. RUN/goodput.json holds the sums as they were when
last heard of, and is replaced about once a second; a kill costs no more than that second, which
then counts as down.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from training import distributed
from training.files import write_atomic

PHASES = ("start", "compile", "restore", "data", "step", "evaluation", "save", "lost", "down")
WORK = ("data", "step", "evaluation")  # what is done again where no checkpoint holds it
FILE = "goodput.json"
EVERY = 1.0  # seconds between two writes
COMPILING = "/jax/core/compile/"


class Goodput:
    """A clock that is always in one phase, so that the phases sum to the wall clock.

    A context manager: inside it, what JAX compiles in this thread is counted as such.

    Args:
        began: when this process began its work, on `clock`; now.
        clock: seconds that never go back.
        now: seconds since 1970, to tell how long no process was there.
    """

    def __init__(
        self,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.processes = 1
        self._clock, self._now = clock, now
        self._mark = self._began = clock() if began is None else began
        self._phase = "start"
        self._compiled: list[tuple[float, float]] = []  # of the span that is not yet counted
        self._path: Path | None = None
        self._written = self._mark
        self._thread = threading.get_ident()

    def __enter__(self) -> "Goodput":
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)
        self.enter(self._phase)
        self._write()

    def enter(self, phase: str) -> None:
        """From here on it is this phase."""
        now = self._clock()
        compiled = sum(end - begin for begin, end in self._compiled)
        self.seconds["compile"] += compiled
        self.seconds[self._phase] += now - self._mark - compiled
        self._compiled.clear()
        self._mark, self._phase = now, phase
        if now - self._written >= EVERY:
            self._written = now
            self._write()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Another phase for a while; then the one before goes on."""
        before = self._phase
        self.enter(name)
        try:
            yield
        finally:
            self.enter(before)

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; waiting for each is the phase `data`."""
        while True:
            with self.phase("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def resume(self, folder: Path, saved: Mapping[str, Any] | None) -> None:
        """Goes on from what earlier processes of the run have left in its folder, and writes
        there from now on. What they did since a checkpoint is lost: it will be done again.

        Args:
            saved: state() as the checkpoint holds it, or None if there is none.
        """
        self._path = folder / FILE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none, or torn
            earlier = json.loads(self._path.read_text())
            away = self._now() - (self._clock() - self._began) - earlier["time"]
            for name in PHASES:
                self.seconds[name] += earlier["seconds"][name]
            self.seconds["down"] += max(0.0, away)
            self.processes += earlier["processes"]
        kept = (saved or {}).get("seconds", {})
        for name in WORK:
            done, self.seconds[name] = self.seconds[name], kept.get(name, 0.0)
            self.seconds["lost"] += max(0.0, done - self.seconds[name])

    def state(self) -> dict[str, Any]:
        """The seconds of each phase up to now, over all processes of the run, as JSON values."""
        self.enter(self._phase)
        return {"seconds": {name: round(value, 6) for name, value in self.seconds.items()}}

    def row(self) -> dict[str, float]:
        """state() as a row of metrics: step_seconds, save_seconds, ..."""
        return {f"{name}_seconds": value for name, value in self.state()["seconds"].items()}

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        """Remembers a span of compilation; spans nest, and the outer one comes last."""
        if not event.startswith(COMPILING) or threading.get_ident() != self._thread:
            return
        end = self._clock()
        begin = max(self._mark, end - duration_secs)
        while self._compiled and self._compiled[-1][0] >= begin:
            self._compiled.pop()
        if self._compiled:
            begin = max(begin, self._compiled[-1][1])
        self._compiled.append((begin, max(begin, end)))

    def _write(self) -> None:
        """Replaces the file, or leaves it as it is: no run ends for want of a report."""
        if self._path is None or not self._path.parent.is_dir() or not distributed.is_first():
            return
        record = {"time": self._now(), "processes": self.processes, "seconds": self.seconds}
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps(record) + "\n", durable=False)


def summary(seconds: Mapping[str, float]) -> str:
    """'81.2 s, of them 71 % step, 12 % compile, ...', the largest first; shares of 1 % up."""
    total = sum(seconds.values())
    shares = {name: value / total for name, value in seconds.items() if value >= 0.01 * total}
    parts = [
        f"{100 * share:.0f} % {name}"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return f"{total:.1f} s, of them {', '.join(parts)}"


def process_start() -> float:
    """When this process was started, on time.monotonic; where the system does not say it, now."""
    now = time.monotonic()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return now
    return now - max(0.0, age)
