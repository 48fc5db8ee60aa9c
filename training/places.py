"""What a thread of this program is at, for those who wait for it."""

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SAVING = ROOT / "training/checkpoints.py"
DATA = f"data{os.sep}"


class Place(NamedTuple):
    """What a thread is at.

    Attributes:
        line: "file:line", or "" where it may take as long as it likes.
        seconds: of processor time that it has had, whole ones. A thread that gets on slowly, on
            a machine that is too busy, has more of them; one that hangs has not.
    """

    line: str
    seconds: int

    @property
    def reads(self) -> bool:
        """Whether it makes or waits for its own data."""
        return self.line.startswith(DATA)


def place_of(thread: int) -> Place:
    """Where a thread is, by the innermost code of ours; it may take as long as it likes to
    compile or to end a save, which can be much longer in one process than in another."""
    try:
        seconds = int(time.clock_gettime(time.pthread_getcpuclockid(thread)))
    except (AttributeError, OSError):  # the system has no such clock
        seconds = 0
    frame, innermost, ours = sys._current_frames().get(thread), "", ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        saves = path == SAVING and frame.f_code.co_name == "wait"
        if saves or path.parts[-3:] == ("jax", "_src", "compiler.py"):
            return Place("", seconds)
        innermost = innermost or f"{path}:{frame.f_lineno}"
        if not ours and path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            ours = f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return Place(ours or innermost, seconds)
