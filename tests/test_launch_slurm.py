"""Launches on a real Slurm of one node."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import launch_stub
import pytest
from launch_cases import arguments, events, states
from slurm_cases import Slurm, output, wait_for

import train
from experiments import launch
from experiments.launching import plan, slurm
from tests import trainer_cases

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, cluster: Slurm) -> None:
    """Runs that take no time."""
    monkeypatch.setattr(plan, "PROGRAM", Path(launch_stub.__file__))
    monkeypatch.setattr(slurm, "POLL", 0.2)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_an_array_with_a_failing_job(tmp_path: Path, capsys) -> None:
    cases = launch_stub
    argv = arguments(tmp_path, cases.DONE, cases.BAD_DATA, 7, more=("--executor=slurm",))
    assert launch.main(argv) == 1
    assert states(tmp_path) == {"1": "done", "4": "failed", "7": "done"}
    said = capsys.readouterr().err
    assert "error: 2 of 3 runs are done, not: synthetic-smoke-seed=4-" in said
    assert "error: data.tsv:3: 2 tabs" in said
    jobs = json.loads((tmp_path / "slurm/jobs.json").read_text())["jobs"]
    assert [job.partition("_")[2] for job in jobs.values()] == ["0", "1", "2"]
    script = next((tmp_path / "slurm").glob("*.sh")).read_text()
    assert "#SBATCH --signal=USR1@120" in script
    assert "#SBATCH --array=0-2%3" in script


@pytest.mark.heavy
def test_a_preempted_job_comes_back_and_goes_on(tmp_path: Path) -> None:
    """The signal that Slurm sends before the time is over."""
    argv = arguments(tmp_path, launch_stub.ENDLESS, more=("--executor=slurm", "--detach"))
    assert launch.main(argv) == 0
    wait_for(lambda: states(tmp_path) == {"6": "running"}, "the job to run")
    (job,) = json.loads((tmp_path / "slurm/jobs.json").read_text())["jobs"].values()
    output("scancel", "--signal=USR1", job)
    assert launch.main([f"--out={tmp_path}", "--resume", "--executor=slurm"]) == 0
    assert states(tmp_path) == {"6": "done"}
    assert [entry["code"] for entry in events(tmp_path, 6, "stop")] == [75, 0]
    (again,) = json.loads((tmp_path / "slurm/jobs.json").read_text())["jobs"].values()
    assert again == job  # it was in the queue, and not submitted a second time
    assert "Restarts=1" in output("scontrol", "show", "job", job)


@pytest.mark.heavy
def test_a_cancelled_job_saves_and_stays_away(tmp_path: Path) -> None:
    argv = arguments(tmp_path, launch_stub.ENDLESS, more=("--executor=slurm", "--detach"))
    assert launch.main(argv) == 0
    wait_for(lambda: states(tmp_path) == {"6": "running"}, "the job to run")
    (job,) = json.loads((tmp_path / "slurm/jobs.json").read_text())["jobs"].values()
    output("scancel", job)
    wait_for(lambda: not slurm.queue([job]), "the job to end")
    assert states(tmp_path) == {"6": "stopped"}
    assert launch.main([f"--out={tmp_path}", "--resume", "--executor=slurm"]) == 0
    assert states(tmp_path) == {"6": "done"}


def test_slurm_s_refusal_is_one_line(tmp_path: Path, capsys) -> None:
    for option, said in (("--sbatch=x", "--sbatch must be"), ("--partition=gpu", "Slurm refuses:")):
        argv = arguments(tmp_path, 1, more=("--executor=slurm", option))
        assert launch.main(argv) == 64
        assert re.search(rf"^error: {said}.*\n\Z", capsys.readouterr().err, re.M)


@pytest.mark.heavy
def test_a_run_of_two_tasks_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train.py itself: its processes find each other through Slurm's variables."""
    pytest.importorskip("training.connecting")
    monkeypatch.setattr(plan, "PROGRAM", Path(train.__file__).absolute())
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # a device for each process
    out, data_dir = tmp_path / "out", trainer_cases.make_data_dir(tmp_path / "data")
    config, *fields = trainer_cases.arguments(data_dir, "lstm", num_steps=3)
    fields = [field for field in fields if "num_devices" not in field]
    argv = [config, *fields, f"--out={out}", "--executor=slurm", "--tasks=2"]
    assert launch.main(argv) == 0
    (folder,) = out.glob("synthetic-*")
    assert json.loads((folder / "environment.json").read_text())["num_processes"] == 2
    assert json.loads((folder / "result.json").read_text())["step"] == 3
    starts = [
        line
        for line in (folder / "journal.jsonl").read_text().splitlines()
        if '"event": "start"' in line
    ]
    assert len(starts) == 1
