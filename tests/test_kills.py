"""Processes of train.py that are killed, asked to stop, or started twice."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from errors import ConfigError
from tests import trainer_cases
from tests.kill_cases import (
    FIELDS,
    check_records,
    kill_again_and_again,
    random_hits,
    run_undisturbed,
)
from tests.trainer_cases import (
    arguments,
    assert_same_outcome,
    journal,
    outcome,
    settings_of,
    tree_of,
)
from tests.trainer_processes import Command, Hit, run_command, wait_for

REPO = Path(__file__).resolve().parent.parent
# How many of 12 kills hit each phase.
EACH_PHASE = {
    "data": 1,
    "restore": 1,
    "step": 3,
    "save": 2,
    "manifest": 3,
    "evaluate": 1,
    "decode": 1,
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a run comes to that nothing happens to."""
    return run_undisturbed(tmp_path_factory.mktemp("uninterrupted"), "lstm")


@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    tmp_path: Path, uninterrupted: dict
) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data", shared=False)
    argv = arguments(data_dir, "lstm", **FIELDS)
    phases = kill_again_and_again(argv, tmp_path, random_hits(1, EACH_PHASE), uninterrupted)
    assert len(phases) >= 6


# The signal, and the newest checkpoint after it (None: not even a run directory).
SIGNALS = [
    (Hit(signal.SIGTERM, "data"), None),
    (Hit(signal.SIGTERM, "restore"), 0),
    (Hit(signal.SIGTERM, "step"), 1),  # while it compiles
    (Hit(signal.SIGUSR1, "step", 2), 3),
    (Hit(signal.SIGTERM, "save"), 4),
    (Hit(signal.SIGTERM, "step"), 5),  # where scores are due: the evaluation stops
    (Hit(signal.SIGINT, "evaluate"), 5),
    (Hit(signal.SIGTERM, "evaluate", 3), 12),  # the last, which no eval_every makes due
    (Hit(signal.SIGTERM, "decode"), 12),
]


@pytest.mark.timeout(1200)
def test_a_signal_in_any_phase_saves_and_leaves_with_75(
    tmp_path: Path, uninterrupted: dict
) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv, workdir = arguments(data_dir, "lstm", **FIELDS), tmp_path / "run"
    for hit, newest in SIGNALS:
        command = run_command(argv, workdir, tmp_path / "output", hit)
        assert command.wait() == 75, (hit, command.stderr)
        assert command.stdout == ""
        name = signal.Signals(hit.number).name
        assert f"error: Stopped by {name}." in command.stderr.splitlines()
        assert "Traceback" not in command.stderr
        if newest is None:
            assert not workdir.exists()
        else:
            assert train.Checkpointer(workdir / "checkpoints", 2, {}).steps()[-1] == newest, hit
            assert journal(workdir)[-1]["event"] == "stop"
            assert journal(workdir)[-1]["code"] == 75
    command = run_command(argv, workdir, tmp_path / "output")
    assert command.wait() == 0, command.stderr
    check_records(workdir)
    assert_same_outcome(outcome(workdir), uninterrupted)
    print(f"{len(SIGNALS)} signals")


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, as SIGSTOP makes it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.timeout(600)
def test_a_second_trainer_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv, workdir = arguments(data_dir, "lstm", **FIELDS), tmp_path / "run"
    first = Command(argv, workdir, tmp_path / "first", Hit(signal.SIGSTOP, "step"))
    try:
        wait_for(lambda: (workdir / "journal.jsonl").exists() and journal(workdir, "restore"), 240)
        wait_for(lambda: is_stopped(first.pid))
        before = tree_of(workdir)
        start = time.process_time()  # others may keep the processor busy
        with pytest.raises(ConfigError) as caught:
            train.train(settings_of(argv), workdir)
        seconds = time.process_time() - start
        assert f"in use by process {first.pid} on {socket.gethostname()}" in str(caught.value)
        second = run_command(argv, workdir, tmp_path / "second")
        assert second.wait() == 64
        assert second.stdout == ""
        assert second.stderr == f"error: {caught.value}\n"
        assert tree_of(workdir) == before
    finally:
        first.send(signal.SIGTERM)
        first.send(signal.SIGCONT)
    assert first.wait() == 75, first.stderr
    assert seconds < 2
    print(f"refused within {seconds:.3f} s")


@pytest.mark.timeout(700)
def test_the_lock_of_a_killed_trainer_is_free(tmp_path: Path) -> None:
    """And the command line as a user gives it, without the forking of these tests."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv, workdir = arguments(data_dir, "lstm", **FIELDS), tmp_path / "run"
    killed = run_command(argv, workdir, tmp_path / "output", Hit(signal.SIGKILL, "restore"))
    assert killed.wait() == -signal.SIGKILL
    assert json.loads((workdir / "lock").read_text())["pid"] == killed.pid
    command = [sys.executable, "train.py", *argv, f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "test perplexity" in done.stdout
    assert [line["event"] for line in journal(workdir)][:2] == ["start", "resume"]
