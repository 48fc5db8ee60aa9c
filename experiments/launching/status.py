"""How far runs are, read from what they leave on the disk."""

import contextlib
import functools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from errors import Preempted, SeqlabError
from experiments.launching.plan import Run
from training import metrics
from training.progress import duration
from training.run_directory import RunDirectory

DONE, RUNNING, STOPPED, FAILED, KILLED, WAITING = (
    *("done", "running", "stopped", "failed", "killed", "waiting"),
)


class Row(NamedTuple):
    """Where a run stands.

    Attributes:
        state: one of those above.
        step, num_steps: batches done and to do.
        loss: nats per token, the newest of validation, or of training before that.
        seconds_left: at the speed of the last rows of metrics.
        note: with what code a run has failed, and what it said.
    """

    name: str
    state: str
    step: int = 0
    num_steps: int = 0
    loss: float = math.nan
    seconds_left: float | None = None
    note: str = ""


def row_of(run: Run, out: Path) -> Row:
    """Where a run of a launch stands."""
    directory = RunDirectory(run.folder(out))
    state, note = state_of(run, directory, run.log(out))
    try:
        rows = rows_of(directory.path)
    except SeqlabError as error:
        return Row(run.name, state, 0, run.num_steps, note=note or str(error))
    step = rows[-1]["step"] if rows else 0
    losses = [(row["split"], row["loss"]) for row in rows if "loss" in row]
    validated = [loss for split, loss in losses if split == "validation"]
    loss = (validated or [loss for _, loss in losses] or [math.nan])[-1]
    left = None if state == DONE else seconds_left(rows, run.num_steps)
    return Row(run.name, state, step, run.num_steps, loss, left, note)


def state_of(run: Run, directory: RunDirectory, log: Path) -> tuple[str, str]:
    """The state of a run, and a note."""
    with contextlib.suppress(SeqlabError):
        if directory.is_finished(run.num_steps):
            return DONE, ""
    if directory.holder():
        return RUNNING, ""
    said = last_line(log)
    if not directory.exists:  # refused before it had a folder, or never started
        return (FAILED, said) if said.startswith("error:") else (WAITING, "")
    stops = [e for e in directory.read_journal() if e.get("event") in ("start", "resume", "stop")]
    if not stops or stops[-1]["event"] != "stop":
        return KILLED, ""
    code = stops[-1]["code"]
    if code in (0, Preempted.exit_code):  # 0: done, and asked for more steps since
        return STOPPED, ""
    return FAILED, f"exit code {code}; {said}"


def last_line(log: Path) -> str:
    """The end of a log, as far as it says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run so far, read again when they have changed."""
    path = folder / metrics.FILE
    try:
        found = path.stat()
    except OSError:
        return []
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=256)
def _read(path: Path, *changed: int) -> list[dict[str, Any]]:
    return metrics.read_metrics(path)


def seconds_left(rows: Sequence[Mapping[str, Any]], num_steps: int) -> float | None:
    """Time that the missing steps will take, by the last rows of training; None if unknown."""
    trained = [row for row in rows if row["split"] == "train" and "seconds" in row][-5:]
    if len(trained) < 2 or trained[-1]["step"] == trained[0]["step"]:
        return None
    first, last = trained[0], trained[-1]
    per_step = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return max(0, num_steps - rows[-1]["step"]) * per_step


# ---------------------------------------------------------------- for people to read


def table(rows: Sequence[Row]) -> Table:
    """The rows with a line of counts above."""
    counts = Counter(row.state for row in rows)
    title = f"{len(rows)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    found = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("run", "state", "step", "loss", "left", ""):
        right = name in ("step", "loss", "left")
        found.add_column(name, justify="right" if right else "left", no_wrap=bool(name))
    for row in rows:
        loss = "" if math.isnan(row.loss) else f"{row.loss:.4g}"
        left = "" if row.seconds_left is None else duration(row.seconds_left)
        step = f"{row.step}/{row.num_steps}"
        found.add_row(row.name, row.state, step, loss, left, row.note)
    return found


def show(rows: Sequence[Row], stream: TextIO) -> None:
    """Writes the table once; what is no terminal has no width to keep to."""
    width = None if stream.isatty() else 400
    Console(file=stream, width=width, markup=False, highlight=False).print(table(rows))


class Board:
    """A table that follows runs: redrawn on a terminal, elsewhere a line for each change.

    Args:
        read: the rows as they are now.
        every: seconds between looks.
    """

    def __init__(
        self, read: Callable[[], list[Row]], every: float = 1.0, stream: TextIO | None = None
    ) -> None:
        self._read, self._every, self._stream = read, every, stream or sys.stderr
        self._states: dict[str, str] = {}
        self._next = 0.0
        self._live: Live | None = None

    def __enter__(self) -> "Board":
        if self._stream.isatty():
            console = Console(file=self._stream, markup=False, highlight=False)
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        self.refresh(at_once=True)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.refresh(at_once=True)
        if self._live:
            self._live.stop()

    def refresh(self, at_once: bool = False) -> None:
        """Looks again, if it is time."""
        if time.monotonic() < self._next and not at_once:
            return
        self._next = time.monotonic() + self._every
        rows = self._read()
        if self._live:
            self._live.update(table(rows), refresh=True)
            return
        for row in rows:
            if self._states.get(row.name, WAITING) != row.state:
                loss = "" if math.isnan(row.loss) else f", loss {row.loss:.4g}"
                note = f" ({row.note})" if row.note else ""
                place = f"step {row.step}/{row.num_steps}{loss}"
                print(f"{row.name}: {row.state}, {place}{note}", file=self._stream, flush=True)
            self._states[row.name] = row.state
