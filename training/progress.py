"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class ProgressBar:
    """Shows steps, tokens per second, loss and time left; a context manager.

    Args:
        total: number of steps of the run.
        done: steps done before, by the run that this one resumes.
        every: seconds between lines where the stream is not a terminal.
        stream: where to write; stderr by default.
    """

    def __init__(
        self, total: int, done: int = 0, every: float = 10.0, stream: TextIO | None = None
    ) -> None:
        stream = stream or sys.stderr
        self._total, self._every, self._stream = total, every, stream
        self._done = done
        self._next_line = 0.0
        self._clock = _Clock(done)
        self._bar: Progress | None = None
        if stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                console=Console(file=stream),
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("step", total=total, completed=done, status="")

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, **values: float) -> None:
        """Shows that so many steps are done, with the latest values.

        Args:
            step: number of steps done.
            values: what to show besides, such as tokens_per_second=5120.0, loss=3.2.
        """
        self._done = step
        seconds = self._clock.seconds_left(step, self._total)
        status = "  ".join(f"{_spaced(name)} {_short(value)}" for name, value in values.items())
        status += f"  left {duration(seconds)}"
        if self._bar:
            self._bar.update(self._task, completed=step, status=status)
        elif time.monotonic() >= self._next_line or step == self._total:
            self._next_line = time.monotonic() + self._every
            print(f"step {step}/{self._total}  {status}", file=self._stream, flush=True)

    def advance(self) -> None:
        """Shows that one more step is done."""
        self.update(self._done + 1)

    def message(self, text: str) -> None:
        """Writes a line, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)


class _Clock:
    """Time left from a running mean over some 20 updates, which forgets the compilation."""

    def __init__(self, step: int):
        self._step, self._time = step, time.monotonic()
        self._seconds_per_step: float | None = None

    def seconds_left(self, step: int, total: int) -> float | None:
        now = time.monotonic()
        if step > self._step:
            latest = (now - self._time) / (step - self._step)
            mean = self._seconds_per_step
            # The first one compiled; twice the new value at most lets it be forgotten at once.
            mean = latest if mean is None or mean > 2 * latest else mean + 0.05 * (latest - mean)
            self._step, self._time, self._seconds_per_step = step, now, mean
        if self._seconds_per_step is None:
            return None
        return (total - step) * self._seconds_per_step


def duration(seconds: float | None) -> str:
    """'1:02:03' or '2:03'; '?' if it is not known."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(value: float) -> str:
    """Four digits: '5120', '3.214', '1.2e-05'."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _spaced(name: str) -> str:
    return name.replace("tokens_per_second", "tokens/s").replace("_", " ")
