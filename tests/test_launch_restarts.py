"""When a job of Slurm is put back in the queue; without a Slurm."""

import os
from pathlib import Path

import pytest

from errors import SeqlabError
from experiments.launching import slurm_task


def test_restarts_that_save_nothing_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task of a job asks for it, and is not ended by an empty Slurm."""
    calls, program = tmp_path / "calls", tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho busy >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm_task, "PATIENCE", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    task = slurm_task.Task([], "log", str(tmp_path), str(tmp_path / "state.json"))
    for restart, step in enumerate((None, None, 5, None, None)):
        if step:
            (tmp_path / f"checkpoints/{step}").mkdir(parents=True)
            (tmp_path / f"checkpoints/{step}/manifest.json").touch()
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        for rank in ("0", "1"):
            monkeypatch.setenv("SLURM_PROCID", rank)
            with pytest.raises(SeqlabError, match="not put back in the queue: busy"):
                task._requeue()
    assert calls.read_text().splitlines() == ["requeue 7"] * 10
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    with pytest.raises(SeqlabError, match="3 restarts saved nothing new"):
        task._requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert task._fruitless() == 0
