"""Every second of a run is counted once, in the phase where it went, over kills as well."""

import json
import signal
import time
from pathlib import Path

import jax
import pytest

import tasks
import train
from tests import trainer_cases
from tests.trainer_cases import arguments, journal, tiny
from tests.trainer_processes import Command, Hit, run_command
from training.goodput import FILE, PHASES, Goodput, process_start, summary


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def seconds_of(goodput: Goodput) -> dict[str, float]:
    """What is not zero."""
    return {name: value for name, value in goodput.state()["seconds"].items() if value}


def test_phases_are_nested_and_lose_nothing() -> None:
    clock = Clock()
    goodput = Goodput(began=98.0, clock=clock)
    clock.now = 101.0
    goodput.enter("step")
    clock.now = 105.0
    with goodput.phase("save"):
        clock.now = 105.5
        with goodput.phase("data"):
            clock.now = 106.5
    clock.now = 107.0
    expected = {"start": 3.0, "step": 4.5, "save": 0.5, "data": 1.0}
    assert seconds_of(goodput) == expected
    assert sum(expected.values()) == clock.now - 98.0


def test_what_is_compiled_is_taken_out_of_the_phase_in_which_it_was() -> None:
    """Spans nest and come when they end; one that began in an earlier phase is cut."""
    clock = Clock()
    with Goodput(clock=clock) as goodput:
        goodput.enter("step")
        spans = [(102.0, 1.0), (103.0, 0.5), (104.0, 3.5), (106.0, 1.0)]
        for clock.now, length in spans:
            jax.monitoring.record_event_duration_secs("/jax/core/compile/x", length)
        jax.monitoring.record_event_duration_secs("/jax/other", 4.0)
        clock.now = 110.0
        goodput.enter("evaluation")
        clock.now = 111.0
        jax.monitoring.record_event_duration_secs("/jax/core/compile/x", 50.0)
        clock.now = 112.0
        assert seconds_of(goodput) == {"compile": 5.5, "step": 5.5, "evaluation": 1.0}
    jax.monitoring.record_event_duration_secs("/jax/core/compile/x", 1.0)
    assert seconds_of(goodput)["compile"] == 5.5


def test_work_that_no_checkpoint_holds_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    first = Goodput(clock=clock, now=clock)
    first.enter("restore")
    clock.now = 101.0
    first.resume(tmp_path, None)
    for phase, until in (("step", 111.0), ("save", 112.0)):
        first.enter(phase)
        clock.now = until
    saved = json.loads(json.dumps(first.state()))
    first.enter("step")
    clock.now = 119.0
    first.enter("data")
    clock.now = 120.0
    first.enter("step")  # the last that is heard of it, and then it is killed
    clock.now = 130.0
    second = Goodput(began=129.0, clock=clock, now=clock)
    second.enter("restore")
    clock.now = 131.0
    second.resume(tmp_path, saved)
    second.enter("step")
    clock.now = 135.0
    expected = {"start": 1.0, "restore": 2.0, "step": 14.0, "save": 1.0, "lost": 8.0, "down": 9.0}
    assert seconds_of(second) == expected
    assert sum(expected.values()) == 35.0
    assert second.processes == 2
    (tmp_path / FILE).write_text('{"time": ')  # torn: what the checkpoint knows is left
    third = Goodput(clock=clock)
    third.resume(tmp_path, saved)
    assert seconds_of(third) == {"step": 10.0}


def test_the_summary_names_the_largest_first() -> None:
    seconds = dict.fromkeys(PHASES, 0.0) | {"step": 8.0, "compile": 1.5, "data": 0.5, "down": 0.01}
    assert summary(seconds) == "10.0 s, of them 80 % step, 15 % compile, 5 % data"


def test_the_age_of_this_process_is_known() -> None:
    import psutil

    age = time.time() - psutil.Process().create_time()
    assert abs(time.monotonic() - process_start() - age) < 1.0


def test_seconds_are_counted_where_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase sleeps for a known time: 8 batches, 3 saves, an evaluation of one batch."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    trainer_cases.share_programs(monkeypatch)
    settings = tiny(data_dir, num_steps=8, save_every=3, eval_every=8)
    train.train(settings, tmp_path / "warm")
    sleeps = {
        "data": (tasks.Translation, "batch", 0.2),
        "step": (trainer_cases.SharedTrainer, "_batch_flops", 0.05),
        "save": (train.Checkpointer, "save", 0.1),
        "evaluation": (tasks.Translation, "evaluate", 0.3),
        "restore": (train.Checkpointer, "restore", 0.2),
        "start": (tasks, "build", 0.25),
    }
    for owner, name, seconds in sleeps.values():
        work = getattr(owner, name)

        def slow(*args, work=work, seconds=seconds, **kwargs):
            time.sleep(seconds)
            return work(*args, **kwargs)

        monkeypatch.setattr(owner, name, slow)
    began = time.monotonic()
    result = train.train(settings, tmp_path / "run")
    seconds = result["goodput"]["seconds"]
    least = {"step": 0.4, "save": 0.3, "evaluation": 0.3, "restore": 0.2, "start": 0.25}
    # The first batch is waited for in full; the next three are made while the step compiles.
    for name, value in {**least, "data": 0.6}.items():
        assert seconds[name] >= value, (name, seconds)
    assert seconds["lost"] == seconds["down"] == 0
    whole = time.monotonic() - began
    assert whole - 0.5 < sum(seconds.values()) <= whole + 1e-3


@pytest.mark.timeout(600)
def test_the_sums_hold_over_a_kill(tmp_path: Path) -> None:
    """A run killed three steps after its save: the clock of the wall knows the truth."""
    fields = {"num_steps": 12, "eval_every": 12, "save_every": 4, "log_every": 1}
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv, workdir = arguments(data_dir, "lstm", **fields), tmp_path / "run"
    killed = Command(argv, workdir, tmp_path / "output", Hit(signal.SIGKILL, "step", 8))
    began = time.time()
    assert killed.wait() == -signal.SIGKILL
    heard = json.loads((workdir / FILE).read_text())
    assert time.time() - heard["time"] < 3.0
    assert abs(sum(heard["seconds"].values()) - (heard["time"] - began)) < 0.25
    time.sleep(1.0)
    done = run_command(argv, workdir, tmp_path / "output")
    assert done.wait() == 0, done.stderr
    assert "wall clock " in done.stdout
    left = time.time()
    record = json.loads((workdir / FILE).read_text())
    whole, seconds = record["time"] - began, record["seconds"]
    assert abs(sum(seconds.values()) - whole) < 0.01 * whole + 0.05
    assert left - record["time"] < 1.5  # what comes after the report is leaving
    assert record["processes"] == 2
    assert seconds["down"] > 1.0
    stops = journal(workdir, "stop")
    assert [set(line["goodput"]["seconds"]) for line in stops] == [set(PHASES)]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["split"] == "goodput"]
    assert {row["step"] for row in kept} == {12}
    assert 0 < kept[0]["step_seconds"] <= whole
    print(f"{sum(seconds.values()):.2f} of {whole:.2f} s: {seconds}")
