"""Runs that are killed at random places, and the run that nothing happens to."""

import random
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

import train
from tests import trainer_cases
from tests.trainer_cases import arguments, assert_same_outcome, journal, outcome, settings_of
from tests.trainer_processes import Hit, run_command

# No period divides another, nor the number of steps: rows, scores and saves all carry over.
FIELDS = {"num_steps": 12, "log_every": 3, "eval_every": 5, "save_every": 2}


def run_undisturbed(place: Path, model: str) -> dict:
    """What a run comes to that nothing happens to."""
    data_dir = trainer_cases.make_data_dir(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        trainer_cases.share_programs(patch)
        train.train(settings_of(arguments(data_dir, model, **FIELDS)), place / "run")
    return outcome(place / "run")


def random_hits(seed: int, each_phase: Mapping[str, int]) -> list[Hit]:
    """SIGKILLs, so many in each phase, half of them in its first instant."""
    generator, hits = random.Random(seed), []
    for phase in [name for name, count in each_phase.items() for _ in range(count)]:
        count = 1 if phase in ("data", "restore", "decode") else generator.randint(1, 3)
        delay = generator.choice([0.0, generator.uniform(0.001, 0.1)])
        hits.append(Hit(signal.SIGKILL, phase, count, delay))
    generator.shuffle(hits)
    return hits


def check_records(workdir: Path) -> None:
    """Each start took up at least what had been announced as saved before it."""
    saved = 0
    for line in journal(workdir):
        if line["event"] == "save":
            saved = line["step"]
        if line["event"] == "restore":
            assert line["step"] >= saved
    assert not journal(workdir, "set_aside")


def kill_again_and_again(
    argv: list[str], place: Path, hits: list[Hit], uninterrupted: dict
) -> set[str]:
    """Runs until all hits have killed a process; each run ends as if none had. The phases hit."""
    num_kills, kills, finished, phases = len(hits), 0, 0, set()
    while kills < num_kills:
        workdir = place / f"run{finished}"
        hit = hits.pop() if hits else Hit(signal.SIGKILL, "step", 2)
        command = run_command(argv, workdir, place / "output", hit)
        if command.wait() == -signal.SIGKILL:
            kills += 1
            phases.add(hit.phase)
            continue
        finish(command, workdir, uninterrupted)  # it ended before it was hit
        finished += 1
    workdir = place / f"run{finished}"
    finish(run_command(argv, workdir, place / "output"), workdir, uninterrupted)
    print(f"\nstorm SIGKILL: {num_kills} tried, {kills} passed ({finished + 1} runs)")
    assert kills > 0
    return phases


def finish(command, workdir: Path, uninterrupted: dict) -> None:
    """The end of a run: nothing is lost and nothing differs."""
    assert command.wait() == 0, command.stderr
    check_records(workdir)
    assert_same_outcome(outcome(workdir), uninterrupted)
