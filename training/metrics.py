"""Metrics of a run: rows by step in metrics.jsonl, and the same for TensorBoard.

metrics.jsonl is what everything else reads: one JSON object a line,
{"step": 100, "split": "train", "loss": 4.2, ...}. NaN and infinite values are written as null,
because JSON has none. The event files are for looking at.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from errors import DataError
from training.files import storage_errors, write_atomic

FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes rows of metrics; a context manager.

    Args:
        directory: the run directory, which must exist.
        last_step: the step from which the run goes on. Rows of later steps, which a killed run
            left, are cut; they will be written again.

    Raises:
        StorageError: the files cannot be read or written (here and in all methods).
    """

    def __init__(self, directory: str | os.PathLike, last_step: int = 0):
        self.path = Path(directory) / FILE
        with storage_errors("write metrics to", self.path):
            cut_rows(self.path, last_step)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
            self._events = SummaryWriter(str(directory), purge_step=last_step + 1)
            self._event_writer = _without_thread(self._events)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Adds a row. Numbers go to TensorBoard too, as "<split>/<name>".

        Args:
            step: number of updates done when the values were measured.
            split: "train", "validation" or "test"; "layers" for norms of layers.
            values: numbers (or NumPy or JAX scalars) and strings, by name.
        """
        row = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": int(step), "split": split} | _finite(row))
        with storage_errors("write metrics to", self.path):
            self._file.write(line + "\n")
            for name, value in row.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{split}/{name}", value, int(step))

    def text(self, step: int, name: str, text: str) -> None:
        """Shows a text, such as sample translations, in TensorBoard."""
        with storage_errors("write metrics to", self.path):
            self._events.add_text(name, text, int(step))

    def sync(self) -> None:
        """Makes all rows durable; call it before a checkpoint of the same step is good."""
        with storage_errors("write metrics to", self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Writes what is left and closes the files."""
        try:
            with storage_errors("write metrics to", self.path):
                self._file.close()
                self._events.close()
        finally:
            # Or it would be closed once more when the program ends, with a traceback.
            self._event_writer._closed = True
            with contextlib.suppress(OSError):
                self._event_writer._ev_writer._py_recordio_writer.close()


def _without_thread(writer: SummaryWriter) -> Any:
    """Lets it write at once, and returns what does: on a full disk its thread would die with a
    traceback, and the eleventh event after that would wait for ever."""
    events = writer.file_writer.event_writer
    events._worker.stop()
    events.add_event = events._ev_writer.write_event
    return events


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a run, by step; nulls become NaN.

    The last row counts where a step and split were written twice. A last line without its
    end, which a running or killed process leaves, is passed over.

    Args:
        path: a run directory or its metrics.jsonl.

    Raises:
        DataError: a row is damaged; names file and row.
        StorageError: the file cannot be read.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    with storage_errors("read metrics from", path):
        lines = _whole_lines(path)
    rows = {}
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            raise DataError(f"{path}, row {number}: not a row of metrics: {line[:60]!r}.")
        row = {name: math.nan if value is None else value for name, value in row.items()}
        rows[row["step"], row["split"]] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def cut_rows(path: Path, last_step: int) -> None:
    """Removes rows of later steps, and damaged ones, from a file of metrics, in one step."""
    if not path.exists():
        return
    lines = _whole_lines(path)
    rows = [(line, _parse(line)) for line in lines]
    kept = [line + "\n" for line, row in rows if row is not None and row["step"] <= last_step]
    text = "".join(kept)
    if text.encode() != path.read_bytes():
        write_atomic(path, text)


def _whole_lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8", errors="replace")
    return text.split("\n")[:-1]  # after the last newline there is nothing, or a torn line


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and "split" in row
    return row if whole else None


def _plain(value: Any) -> bool | int | float | str:
    """A Python value for a NumPy or JAX scalar."""
    return value if isinstance(value, str) else np.asarray(value).item()


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
