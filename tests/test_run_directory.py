"""One trainer at a time, nothing foreign overwritten, and records that survive a kill."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from errors import ConfigError, DataError, StorageError
from training import files, run_directory
from training.run_directory import RunDirectory

REPO = Path(__file__).resolve().parent.parent

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from training.run_directory import RunDirectory
run = RunDirectory(sys.argv[2]).lock()
run.journal("start")
print("locked", flush=True)
time.sleep(600)
"""


def test_second_trainer_is_refused_within_two_seconds_and_names_the_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(REPO), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        start = time.process_time()  # others may keep the processor busy
        with pytest.raises(ConfigError) as error:
            RunDirectory(tmp_path / "run").lock()
        assert time.process_time() - start < 2
        assert f"in use by process {holder.pid} on {os.uname().nodename} since" in str(error.value)
        other = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert f"process {holder.pid} on" in other.stderr
        holder.send_signal(signal.SIGKILL)  # the lock goes with its holder
    with RunDirectory(tmp_path / "run").lock() as run:
        assert [entry["event"] for entry in run.read_journal()] == ["start"]


def test_lock_can_be_taken_again_after_unlock(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDirectory(tmp_path).lock():
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
            with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
                RunDirectory(tmp_path).lock()
    assert (tmp_path / "lock").read_text() == ""


def test_refuses_what_is_not_a_run_directory_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "config.json").write_text("{}")  # other programs have one, too
    refused = [(file, "is a file"), (thesis, "has 'config.json' but no journal.jsonl")]
    for path, message in refused:
        with pytest.raises(ConfigError, match=message):
            RunDirectory(path).lock()
        with pytest.raises(ConfigError, match=message):
            RunDirectory(path).check()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "file", "thesis"]
    print(f"{len(refused)} cases")


def test_a_run_that_was_killed_before_its_first_record_can_start_again(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("")
    with RunDirectory(tmp_path).lock() as run:
        assert not run.exists
        run.journal("start")
        assert run.exists
    RunDirectory(tmp_path).check()


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write to run directory .*: Not a directory"):
        RunDirectory(tmp_path / "file" / "run").lock()
    run = RunDirectory(tmp_path / "gone")
    for act in (lambda: run.journal("start"), lambda: run.write_config({}), run.read_journal):
        with pytest.raises(StorageError, match="No such file or directory") as error:
            act()
        assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_is_said_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        RunDirectory(tmp_path / "run").lock()


def test_a_line_of_the_journal_is_whole_where_the_system_takes_it_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Halves(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[: max(1, len(data) // 2)])

    def open_in_parts(path: Path, *_: Any, **__: Any) -> Halves:
        return Halves(path, "a+")

    run = RunDirectory(tmp_path).lock()
    monkeypatch.setattr(run_directory, "open", open_in_parts, raising=False)
    run.journal("save", step=7)
    run.journal("stop", code=0)
    assert [entry["event"] for entry in run.read_journal()] == ["save", "stop"]
    run.unlock()


def test_journal_keeps_all_whole_lines_around_a_torn_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.journal("start", num_steps=10)
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write('{"event": "sa')
    run.journal("resume", step=5)
    run.journal("stop", code=75)
    entries = [(entry.pop("time"), entry)[1] for entry in run.read_journal()]
    assert entries == [
        {"event": "start", "num_steps": 10},
        {"event": "resume", "step": 5},
        {"event": "stop", "code": 75},
    ]


def test_config_result_and_environment(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.read_config() is None
    assert run.result() is None
    run.write_config({"seed": 1, "model": {"name": "x", "d_model": 8}})
    text = (tmp_path / "config.json").read_text()
    assert list(json.loads(text)) == ["model", "seed"]
    assert run.read_config() == {"seed": 1, "model": {"name": "x", "d_model": 8}}
    run.finish({"bleu": 12.5})
    assert run.result() == {"bleu": 12.5}
    written = run.write_environment()
    assert json.loads((tmp_path / "environment.json").read_text()) == written
    assert written["versions"].keys() >= {"python", "jax", "flax", "optax", "numpy"}
    assert written["devices"]
    assert (written["commit"] is None) or len(written["commit"]) == 40
    assert sorted(os.listdir(tmp_path)) == ["config.json", "environment.json", "result.json"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(DataError, match=r"config\.json is damaged: Expecting value"):
        RunDirectory(tmp_path).read_config()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_earlier_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run = RunDirectory(tmp_path)
    run.write_config({"seed": 1})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"config\.json: No space left on device \(.* free\)\."):
        run.write_config({"seed": 2})
    assert run.read_config() == {"seed": 1}
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, figure = tmp_path / "a.pdf", Figure(figsize=(1, 1))
    files.save_figure(path, figure, dpi=20)
    earlier = path.read_bytes()
    assert earlier.startswith(b"%PDF")

    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StorageError, match=r"Cannot write .*a\.pdf: No space left"):
        files.save_figure(path, figure, dpi=30)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [earlier]
