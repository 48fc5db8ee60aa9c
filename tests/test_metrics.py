"""Rows of metrics: none twice, none lost, whatever stopped the run before."""

import json
import math
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from errors import DataError, StorageError
from training.metrics import MetricsWriter, read_metrics


def steps(path: Path, split: str = "train") -> list[int]:
    return [row["step"] for row in read_metrics(path) if row["split"] == split]


def test_rows_come_back(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": jnp.float32(2.5), "tokens": np.int64(640)})
        writer.write(1, "validation", {"loss": 3.0, "signature": "nrefs:1"})
        writer.text(1, "samples", "ein Haus = a house")
        writer.sync()
    assert read_metrics(tmp_path) == [
        {"step": 1, "split": "train", "loss": 2.5, "tokens": 640},
        {"step": 1, "split": "validation", "loss": 3.0, "signature": "nrefs:1"},
    ]
    [events] = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"train/loss", b"train/tokens", b"validation/loss", b"samples", b"a house"):
        assert tag in content


def test_values_that_json_lacks_are_null_on_disk_and_nan_in_python(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.inf, "norm": math.nan})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row == {"step": 1, "split": "train", "loss": None, "norm": None}
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def test_resume_cuts_what_came_after_the_restored_step(tmp_path: Path) -> None:
    """Resumes from each step of ten, with and without a torn last line."""
    path, tried = tmp_path / "metrics.jsonl", 0
    for restored in range(11):
        for torn in ("", '{"step": 11, "spl', '{"step": 3, "split": "train"'):
            path.unlink(missing_ok=True)
            with MetricsWriter(tmp_path) as writer:
                for step in range(1, 11):
                    writer.write(step, "train", {"run": 1})
            with open(path, "a") as file:
                file.write(torn)
            assert steps(path) == list(range(1, 11))
            with MetricsWriter(tmp_path, last_step=restored) as writer:
                for step in range(restored + 1, 13):
                    writer.write(step, "train", {"run": 2})
            rows = read_metrics(path)
            assert [row["step"] for row in rows] == list(range(1, 13))
            assert [row["run"] for row in rows] == [1] * restored + [2] * (12 - restored)
            assert len(path.read_text().splitlines()) == 12
            tried += 1
    print(f"{tried} resumes")


def test_nothing_is_rewritten_when_nothing_is_cut(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {})
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    with MetricsWriter(tmp_path, last_step=1) as writer:
        writer.write(2, "train", {})
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode
    assert steps(tmp_path) == [1, 2]


def test_last_row_of_a_step_counts(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(2, "test", {"bleu": 1.0})
        writer.write(1, "test", {"bleu": 0.5})
        writer.write(2, "test", {"bleu": 2.0})
    assert [row["bleu"] for row in read_metrics(tmp_path)] == [0.5, 2.0]


def test_damage_names_file_and_row_and_does_not_stop_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "split": "train"}\n'
    bad = ["{\n", "[]\n", '{"step": "1", "split": "train"}\n', '{"step": 1}\n', "\n"]
    for line in bad:
        path.write_text(good + line + good.replace("1", "2"))
        with pytest.raises(DataError, match=r"metrics\.jsonl, row 2: not a row of metrics"):
            read_metrics(path)
        MetricsWriter(tmp_path, last_step=2).close()
        assert steps(path) == [1, 2]
    print(f"{len(bad)} kinds of damage")


def test_a_file_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Cannot read metrics from .*: No such file"):
        read_metrics(tmp_path / "gone.jsonl")
    with pytest.raises(StorageError, match=r"Cannot write metrics to .*: No such file"):
        MetricsWriter(tmp_path / "gone")


def test_a_full_disk_under_the_event_file_is_said_and_waits_for_nobody(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    threads = [thread for thread in threading.enumerate() if "EventLogger" in type(thread).__name__]
    assert not threads
    record = writer._event_writer._ev_writer._py_recordio_writer
    record._writer.close()
    record._writer = open("/dev/full", "wb")  # noqa: SIM115
    writer.write(1, "train", {"loss": 1.0})
    with pytest.raises(StorageError, match="No space left"):
        writer.sync()
    with pytest.raises(StorageError, match="No space left"):
        writer.close()
    assert writer._event_writer._closed  # or the end of the program would close it once more
