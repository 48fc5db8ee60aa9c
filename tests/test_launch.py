"""A launch: what is run, under what name, by what command; and on this machine to its end."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import launch_stub
import pytest
from launch_cases import CONFIG, STEPS, arguments, events, states

from errors import python_command
from experiments import launch
from experiments.launching import local, machine, plan, status
from training import gpus


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that take no time, two at once, on no accelerator."""
    monkeypatch.setattr(plan, "PROGRAM", Path(launch_stub.__file__))
    monkeypatch.setattr(local, "POLL", 0.01)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


# ---------------------------------------------------------------- the plan


def test_the_runs_are_the_product_of_strings_and_grids() -> None:
    grid = ["optimizer.learning_rate=1e-3,3e-4", "config.seed=0,1,2"]
    runs = plan.make([CONFIG, f"{CONFIG},task=reverse"], [STEPS], grid)
    assert len({run.name for run in runs}) == len(runs) == 12
    assert runs[4].overrides == (
        STEPS,
        "--config.optimizer.learning_rate=3e-4",
        "--config.seed=1",
    )
    assert runs[4].name.startswith("synthetic-smoke-learning_rate=3e-4-seed=1-")
    assert [run.config for run in runs[6:]] == [f"{CONFIG},task=reverse"] * 6
    assert {run.num_steps for run in runs} == {4}


def test_names_follow_from_string_and_fields_alone() -> None:
    one = plan.name_of("configs/gpt.py", ["--config.seed=1"])
    assert one == plan.name_of("configs/gpt.py", ["--config.seed=1"]) == "gpt-0cadd8dc"
    others = [("configs/gpt.py", ["--config.seed=2"]), ("configs/bert.py", ["--config.seed=1"])]
    assert len({one, *(plan.name_of(*other) for other in others)}) == 3
    long = plan.name_of(f"configs/gpt.py:data=/{'x/é' * 99}", [])
    assert re.fullmatch(r"[A-Za-z0-9=._-]+", long)
    assert len(long) <= plan.MAX_NAME


def test_the_order_of_the_fields_names_no_other_run(tmp_path: Path) -> None:
    rate, seed = "optimizer.learning_rate=1e-3,3e-4", "seed=0,1"
    one, other = (
        plan.make([CONFIG], [STEPS], [rate, seed]),
        plan.make([CONFIG], [STEPS], [seed, rate]),
    )
    assert {run.name for run in one} == {run.name for run in other}
    fixed = plan.make([CONFIG], ["--config.seed=1", STEPS], [rate])
    plan.write(tmp_path, one)
    assert plan.joined(tmp_path, [*other, *fixed], resume=True) == one


def test_a_sweep_is_the_strings_of_the_file() -> None:
    from configs import synthetic

    runs = plan.make([CONFIG], sweep=True)
    assert [run.config for run in runs] == [
        f"configs/synthetic.py:{string},smoke" for string in synthetic.sweep()
    ]


def test_commas_in_brackets_divide_no_values() -> None:
    assert plan.axis("parallel.mesh=(0,1,1),(1,2,[3,4])") == [
        ("parallel.mesh", "(0,1,1)"),
        ("parallel.mesh", "(1,2,[3,4])"),
    ]


BAD = [
    (["--executor=slurn"], "Did you mean 'slurm'? Known: kubernetes, local, slurm."),
    (["--gird=seed=1"], "Did you mean '--grid'?"),
    (["--grid=sed=1"], "with sed=1: Unknown field of config: 'sed'. Did you mean 'seed'?"),
    (["--grid=seed=0,-1"], "with seed=-1: config.seed must be"),
    (["--grid=seed=1,1"], "--grid must be FIELD=VALUE"),
    (["--grid=seed=0", "--grid=seed=1"], "config.seed is given twice"),
    (["--grid=seed=0", "--config.seed=1"], "config.seed is given twice"),
    (["--grid=optimizer={}", "--grid=optimizer.name=adam"], "(once as optimizer.name)"),
    (["--grid=seed"], "--grid must be FIELD=VALUE"),
    (["--grid=seed=1,"], "--grid must be FIELD=VALUE"),
    (["--config.optimizer.learning_rat=1"], "learning_rate"),
    (["--config=configs/synthetic.py:task=revers"], "Did you mean 'reverse'?"),
    (["--config=configs/synthetc.py"], "configs/synthetic.py"),
    ([f"--config={CONFIG}"], "stands there twice"),
    (["--config=configs/hidden_markov.py:lenth=3", "--sweep"], "Did you mean 'length'?"),
    (["--config=/dev/null.json", "--sweep"], "Unknown config file"),
    (["--partition=gpu"], "--partition needs --executor=slurm."),
    (["--executor=slurm", "--minutes=2"], "--grace (120 seconds) must be less than --minutes (2)"),
    (["--jobs=0"], "--jobs"),
    (["--memory=0"], "--memory must be above 0"),
    (["--nodes=2"], "--nodes (2) needs --executor=slurm or kubernetes."),
    (["--executor=kubernetes"], "needs --image"),
]


def test_bad_input_is_one_line_before_anything_starts(tmp_path: Path, capfd) -> None:
    for extra, said in BAD:
        argv = [f"--config={CONFIG}", f"--out={tmp_path / 'out'}", *extra]
        assert launch.main(argv) == 64, extra
        err = capfd.readouterr().err
        assert re.fullmatch(r"error: [^\n]*\n", err), err
        assert said in err, err
    others: list[tuple[list[str], str]] = [
        ([], "Nothing to run"),
        (["--resume"], "holds no launch"),
    ]
    for ignored in ("--grid=seed=1", "--sweep", "--config.seed=1"):
        others.append((["--resume", ignored], "need --config."))
    for argv, said in others:
        assert launch.main([f"--out={tmp_path / 'out'}", *argv]) == 64
        assert said in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    print(f"{len(BAD) + len(others)} bad command lines")


def test_a_folder_of_other_things_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "photo").touch()
    for resume in ([], ["--resume"]):
        assert launch.main([*arguments(tmp_path, 1), *resume]) == 64
        assert "neither empty nor a launch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo"]


def test_a_dry_run_prints_commands_and_writes_nothing(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert launch.main([*arguments(out, 1, 2), "--dry_run"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    begin = python_command("train.py", f"--config={CONFIG}", f"--workdir={out}/synthetic-smoke-se")
    assert first.startswith(begin)
    assert second.endswith(f"{STEPS} --config.seed=2")
    assert last.startswith("2 runs to do, 0 done")
    assert not out.exists()


# ---------------------------------------------------------------- on this machine


def test_failures_stay_alone_and_are_named(tmp_path: Path, capsys) -> None:
    cases = launch_stub
    seeds = (cases.BAD_DATA, cases.KILLED, cases.DONE, cases.PREEMPTED_ONCE, cases.ALWAYS_PREEMPTED)
    assert launch.main(arguments(tmp_path, *seeds, more=("--jobs=2",))) == 1
    found = {"4": "failed", "5": "killed", "1": "done", "2": "done", "3": "stopped"}
    assert states(tmp_path) == found
    assert len(events(tmp_path, cases.PREEMPTED_ONCE, "resume")) == 1
    assert len(events(tmp_path, cases.ALWAYS_PREEMPTED, "stop")) == local.FRUITLESS
    printed = capsys.readouterr()
    assert re.search(r"seed=1-\S+ +done +4/4 +0\.25", printed.out)
    said = printed.err.splitlines()[-1]
    assert said.startswith("error: 2 of 5 runs are done, not: synthetic-smoke-seed=4-")
    assert "(failed: error: data.tsv:3: 2 tabs)" in said
    assert "(killed)" in said


def test_resume_runs_what_is_not_done_and_nothing_else(tmp_path: Path, capsys) -> None:
    argv = arguments(tmp_path, launch_stub.DONE, launch_stub.PREEMPTED_ONCE)
    assert launch.main(argv) == 0
    assert launch.main(argv) == 64
    assert "holds a launch of 2 runs. Add --resume" in capsys.readouterr().err
    assert launch.main([f"--out={tmp_path}", "--resume"]) == 0
    assert launch.main([*arguments(tmp_path, 1, 7), "--resume"]) == 0
    assert states(tmp_path) == {"1": "done", "2": "done", "7": "done"}
    assert len(events(tmp_path, launch_stub.DONE, "start")) == 1
    assert not events(tmp_path, launch_stub.DONE, "resume")
    capsys.readouterr()
    assert launch.main([f"--out={tmp_path}", "--status"]) == 0
    assert capsys.readouterr().out.startswith("3 runs: 3 done")


def test_each_run_has_cores_of_its_own(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    room = [machine.Place({}, frozenset({core})) for core in sorted(mine)[:2]]
    runs = plan.make([CONFIG], [STEPS], ["seed=1,7"])
    with local.Pool(tmp_path, room) as pool:
        for run in runs[: len(room)]:
            pool.start(run)
        assert os.sched_getaffinity(0) == mine
        while pool.busy:
            pool.finished()
            time.sleep(0.01)
    for run, place in zip(runs, room, strict=False):
        (start,) = events(tmp_path, int(run.overrides[-1].rpartition("=")[2]), "start")
        assert start["cores"] == sorted(place.cores)


def test_places_follow_from_devices_memory_and_runs(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(machine, "available_bytes", lambda: 7e9)
    shares = [sorted(place.cores) for place in machine.places(None, 2.0, 99)]
    assert shares == [[0, 3], [1, 4], [2, 5]]
    assert len(machine.places(None, 2.0, 2)) == 2
    assert len(machine.places(None, 100.0, 9)) == 1
    assert [len(place.cores) for place in machine.places(8, 2.0, 9)] == [1] * 8
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place.env["CUDA_VISIBLE_DEVICES"] for place in machine.places(None, 2.0, 9)] == [
        "2",
        "5",
    ]
    with pytest.raises(launch.ConfigError, match=r"--jobs \(3\) is more than the GPUs"):
        machine.places(3, 2.0, 9)
    assert gpus.visible() == ["2", "5"]


def test_a_system_without_affinity_has_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(machine, "available_bytes", lambda: float("inf"))
    assert machine.places(None, 2.0, 9) == [machine.Place({})] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_runs_save_and_says_how_to_go_on(number, tmp_path: Path, capsys) -> None:
    seeds = (launch_stub.ENDLESS, launch_stub.DONE, 16)

    def hit() -> None:
        while states(tmp_path).get(str(launch_stub.ENDLESS)) != "running":
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=hit)
    thread.start()
    assert launch.main(arguments(tmp_path, *seeds, more=("--jobs=1",))) == 75
    thread.join()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "error: 0 of 3 runs are done. Go on: "
        + python_command("experiments/launch.py", f"--out={tmp_path}", "--resume")
    )
    assert states(tmp_path) == {"6": "stopped", "1": "waiting", "16": "waiting"}
    assert launch.main([f"--out={tmp_path}", "--resume"]) == 0
    assert len(events(tmp_path, launch_stub.ENDLESS, "resume")) == 1


# ---------------------------------------------------------------- the table


def test_time_left_is_that_of_the_last_rows() -> None:
    rows = [{"step": n, "split": "train", "seconds": s} for n, s in ((1, 50), (2, 52), (4, 56))]
    assert status.seconds_left(rows, 10) == pytest.approx(6 * 6 / 3)
    assert status.seconds_left(rows[:1], 10) is None
    assert status.seconds_left([], 10) is None


def test_damaged_records_are_one_line_or_no_end(tmp_path: Path, capsys) -> None:
    assert launch.main(arguments(tmp_path, launch_stub.DONE)) == 0
    (run,) = plan.read(tmp_path)
    (run.folder(tmp_path) / "result.json").write_text("{}")
    assert states(tmp_path) == {"1": "stopped"}
    for said in ("{}", "[]", '{"host": "elsewhere"}', '{"pid": 1'):
        (run.folder(tmp_path) / "lock").write_text(said)
        assert states(tmp_path) == {"1": "stopped"}
    for text in ('{"format": 1}', '{"format": 1, "runs": [{}]}', '{"format": 1, "runs": 3}'):
        (tmp_path / plan.FILE).write_text(text)
        capsys.readouterr()
        assert launch.main([f"--out={tmp_path}", "--status"]) == 64
        assert re.fullmatch(r"error: [^\n]*\n", capsys.readouterr().err)


def test_a_killed_holder_is_no_holder(tmp_path: Path) -> None:
    """The lock keeps the name of a process that was killed."""
    run = plan.make([CONFIG], [STEPS, "--config.seed=5"])[0]
    child = subprocess.run([*run.command(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert "pid" in (run.folder(tmp_path) / "lock").read_text()
    assert status.row_of(run, tmp_path).state == status.KILLED
    assert sys.executable == run.command(tmp_path)[0]
