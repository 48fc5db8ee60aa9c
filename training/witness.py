"""What the processes of a run have that do not write: records that keep nothing."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from training import distributed
from training.metrics import MetricsWriter
from training.run_directory import RunDirectory, environment


class Witness(RunDirectory):
    """A run directory that another process of the same run holds; only reads it."""

    def lock(self) -> "Witness":
        return self

    def journal(self, event: str, **fields: Any) -> None:
        pass

    def write_environment(self) -> dict[str, Any]:
        return environment()

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        pass


class NoMetrics(MetricsWriter):
    """Rows of metrics that another process of the same run writes."""

    def __init__(self) -> None:
        pass

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        pass

    def text(self, step: int, name: str, text: str) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def run_directory(path: str | os.PathLike) -> RunDirectory:
    """The folder of a run, as this process may use it."""
    return RunDirectory(path) if distributed.is_first() else Witness(path)


def metrics_writer(directory: Path, last_step: int) -> MetricsWriter:
    """Where this process's rows of metrics go."""
    return MetricsWriter(directory, last_step) if distributed.is_first() else NoMetrics()


def console() -> TextIO | None:
    """Where this process shows its progress; None is standard error."""
    return None if distributed.is_first() else open(os.devnull, "w")
