"""A bar on a terminal, few lines elsewhere."""

import io
import time

import pytest

from training.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with ProgressBar(total=1000, every=60.0, stream=stream) as progress:
        for step in range(1, 1001):
            progress.update(step, tokens_per_second=5120.4, loss=3.21456)
        progress.message("saved")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3  # the first, the last and the message
    assert lines[0].startswith("step 1/1000  tokens/s 5120  loss 3.215  left ")
    assert lines[1].startswith("step 1000/1000 ")
    assert lines[1].endswith("left 0:00")
    assert lines[2] == "saved"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressBar(total=10, done=4, stream=stream) as progress:
        progress.update(7, loss=1.5)
        progress.message("[bold]not markup[/bold] " + "x" * 200)
    text = stream.getvalue()
    assert " 7/10" in text
    assert "loss 1.5" in text
    assert "[bold]not markup[/bold] " + "x" * 200 in text


def test_time_left_forgets_the_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = ProgressBar(total=110, done=10, every=0.0, stream=stream)
    progress.update(10, loss=1.0)
    now += 30.0  # the first step compiles
    progress.update(11, loss=1.0)
    for step in range(12, 51):
        now += 0.5
        progress.update(step, loss=1.0)
    left = [line.split("left ")[1] for line in stream.getvalue().splitlines()]
    assert left[0] == "?"
    assert left[1] == "49:30"
    assert left[2] == "0:49"
    assert left[-1] == "0:30"
    progress.advance()
    assert stream.getvalue().splitlines()[-1].startswith("step 51/110")
