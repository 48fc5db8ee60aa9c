"""A search for hyper-parameters: what it proposes, cuts off, keeps, and does after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import launch_stub
import psutil
import pytest

from errors import python_command
from experiments import search
from experiments.launching import local, plan, space
from training import config_files

optuna = pytest.importorskip("optuna")

CONFIG = """
from configs import synthetic
get_config = synthetic.get_config
def search_space():
    return {"optimizer.learning_rate": {"low": 0.1, "high": 90.0, "log": True}}
"""


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that take no time; their loss is the learning rate over the step."""
    monkeypatch.setattr(plan, "PROGRAM", Path(launch_stub.__file__))
    monkeypatch.setattr(local, "POLL", 0.01)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    (tmp_path / "mine.py").write_text(CONFIG)
    return [
        f"--config={tmp_path / 'mine.py'}:smoke",
        f"--out={tmp_path / 'out'}",
        f"--config.num_steps={launch_stub.STEPS}",
        "--startup=2",
    ]


def trials(out: Path) -> list:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out}/search.db")
    return study.get_trials(deepcopy=False)


def starts(folder: Path) -> int:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return sum(json.loads(line)["event"] in ("start", "resume") for line in lines)


def test_the_best_trial_is_found_and_the_worst_are_cut(argv, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert search.main([*argv, "--trials=8", "--jobs=2"]) == 0
    found = trials(out)
    assert len(found) == 8
    states = [trial.state.name for trial in found]
    assert set(states) == {"COMPLETE", "PRUNED"}
    for trial in found:
        rate = trial.params["optimizer.learning_rate"]
        reported = trial.intermediate_values
        if rate > launch_stub.DIVERGES:
            assert (trial.state.name, reported) == ("PRUNED", {})
        else:
            assert reported == {n: pytest.approx(rate / n) for n in reported}
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(rate / launch_stub.STEPS)
    best = min((t for t in found if t.value is not None), key=lambda trial: trial.value)
    told, command = capsys.readouterr().out.splitlines()
    assert told.startswith(f"8 trials, {states.count('PRUNED')} of them cut off; best: trial-")
    assert command.startswith(python_command("train.py", "--workdir=RUN", "--config="))
    (rate,) = re.findall(r"learning_rate=(\S+)$", command)
    assert float(rate) == best.params["optimizer.learning_rate"]
    assert "final_split" not in command


def test_what_is_above_the_median_is_stopped_and_keeps_its_checkpoint(argv, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [*argv, f"--config.seed={launch_stub.THIRD_ENDLESS}"]
    assert search.main([*argv, "--trials=2"]) == 0
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out}/search.db")
    worst = 1 + max(trial.params["optimizer.learning_rate"] for trial in trials(out))
    study.enqueue_trial({"optimizer.learning_rate": min(worst, launch_stub.DIVERGES)})
    assert search.main([*argv, "--trials=3"]) == 0
    third = trials(out)[2]
    assert third.state.name == "PRUNED"
    assert list(third.intermediate_values) == [1]
    assert list((out / "trial-0002/checkpoints").iterdir())


def wait_for_first(out: Path) -> dict:
    """The process of the first trial, once it is at work."""
    metrics, lock = out / "trial-0000/metrics.jsonl", out / "trial-0000/lock"
    end = time.monotonic() + 120
    while not metrics.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return json.loads(lock.read_text())


def check_resumed(argv: list[str], out: Path) -> None:
    """The search goes on to its end, and ends again at once."""
    assert search.main(argv) == 0
    assert [trial.number for trial in trials(out)] == [0, 1, 2]
    before = {folder.name: starts(folder) for folder in out.glob("trial-*")}
    assert before == {"trial-0000": 2, "trial-0001": 1, "trial-0002": 1}
    assert search.main(argv) == 0
    assert {folder.name: starts(folder) for folder in out.glob("trial-*")} == before


def test_a_stopped_search_goes_on_and_runs_no_trial_again(argv, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    argv = [*argv, "--trials=3", f"--config.seed={launch_stub.ENDLESS}"]

    def hit() -> None:
        wait_for_first(out)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=hit)
    thread.start()
    assert search.main(argv) == 75
    thread.join()
    assert "error: Stopped; the same command goes on." in capsys.readouterr().err
    check_resumed(argv, out)


@pytest.mark.heavy
def test_a_killed_search_goes_on_and_runs_no_trial_again(argv, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [*argv, "--trials=3", f"--config.seed={launch_stub.ENDLESS}"]
    program = (
        "import sys; from pathlib import Path; from experiments import search\n"
        "from experiments.launching import plan\n"
        f"plan.PROGRAM = Path({launch_stub.__file__!r})\n"
        "sys.exit(search.main(sys.argv[1:]))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(launch_stub.__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", program, *argv], env=env)
    trial = wait_for_first(out)
    process.kill()
    process.wait()
    os.kill(trial["pid"], signal.SIGTERM)  # the run was not hit: it lives
    while psutil.pid_exists(trial["pid"]):
        time.sleep(0.02)
    check_resumed(argv, out)


BAD = [
    ({"optimizer.learning_rate": {"low": 1.0, "high": 0.1}}, "low (1) must be below high (0.1)"),
    ({"optimizer.learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, "above 0 and below"),
    ({"optimizer.learning_rate": {"low": 0.1, "hihg": 1.0}}, "Did you mean 'high'?"),
    ({"optimizer.learning_rat": {"low": 0.1, "high": 1.0}}, "learning_rate"),
    ({"optimizer.learning_rate": {"low": -1.0, "high": 1.0}}, "config.optimizer.learning_rate"),
    ({"optimizer.clip_norm": {"choices": [1.0]}}, "two or more different"),
    ({"optimizer.name": {"choices": ["adamw", "adma"]}}, "'adma'"),
    ({"optimizer.clip_norm": 3}, "must be a block"),
    ({}, "must return a dict of fields"),
]


def test_a_bad_space_is_one_line_before_the_first_trial(tmp_path: Path, capsys) -> None:
    for content, said in BAD:
        text = CONFIG.partition("    return ")[0] + f"    return {content!r}\n"
        (tmp_path / "mine.py").write_text(text)
        argv = [f"--config={tmp_path / 'mine.py'}:smoke", f"--out={tmp_path / 'out'}"]
        assert search.main(argv) == 64, content
        err = capsys.readouterr().err
        assert re.fullmatch(r"error: [^\n]*\n", err), err
        assert said in err, err
    assert search.main(["--config=configs/gpt.py:smoke", f"--out={tmp_path / 'out'}"]) == 64
    assert "no function search_space()" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    print(f"{len(BAD) + 1} bad spaces")


def test_another_search_in_the_folder_is_refused(argv, tmp_path: Path, capsys) -> None:
    assert search.main([*argv, "--trials=1"]) in (0, 1)
    capsys.readouterr()
    assert search.main([*argv, "--trials=1", "--config.seed=1"]) == 64
    assert "holds a search with another fixed" in capsys.readouterr().err
    assert search.main([*argv[:1], f"--out={tmp_path}", "--trials=1"]) == 64
    assert "neither empty nor a search" in capsys.readouterr().err


def test_what_cannot_be_a_database_is_one_line(argv, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / search.DATABASE).write_text("no database" * 99)
    for out in ("out", "mine.py/out"):
        assert search.main([*argv, f"--out={tmp_path / out}"]) == 74
        assert re.fullmatch(r"error: [^\n]*\n", capsys.readouterr().err)


def test_a_pruned_trial_that_nobody_told_is_not_run(argv, tmp_path: Path) -> None:
    """The search was killed between its decision and the end of the run."""
    (tmp_path / "out").mkdir()
    study = search.opened(optuna, tmp_path / "out" / search.DATABASE)
    rate = optuna.distributions.FloatDistribution(0.1, 90.0, log=True)
    study.ask({"optimizer.learning_rate": rate}).set_user_attr("pruned", True)
    search.main([*argv, "--trials=1"])
    assert [trial.state.name for trial in trials(tmp_path / "out")] == ["PRUNED"]
    assert not (tmp_path / "out/trial-0000").exists()


def test_a_pruned_trial_that_fails_has_failed(argv, tmp_path: Path) -> None:
    found = search.Search(search.make_parser().read([*argv, "--trials=1"]))
    for code, state in ((65, "RUNNING"), (74, "RUNNING"), (75, "PRUNED"), (70, "PRUNED")):
        trial = found.study.ask(space.distributions(found.space))
        trial.set_user_attr("pruned", True)
        run = found.run_of(trial.number, trial.params)
        found.active[run.name] = trial
        if state == "RUNNING":
            with pytest.raises(search.TrialFailed):
                found._tell(run, code)
        else:
            found._tell(run, code)
        assert trials(tmp_path / "out")[-1].state.name == state


def test_a_trial_that_fails_ends_the_search_and_is_tried_again(argv, tmp_path, capsys) -> None:
    bad = [*argv, "--trials=2", f"--config.seed={launch_stub.BAD_DATA}"]
    for _ in range(2):
        assert search.main(bad) == 65
        said = capsys.readouterr().err.splitlines()[-1]
        assert said == "error: trial-0000: exit code 65; error: data.tsv:3: 2 tabs"
    assert len(trials(tmp_path / "out")) == 1


def test_every_space_fits_its_config() -> None:
    for name in ("synthetic", "translation"):
        found = space.load(f"configs/{name}.py")
        for point in space.corners(found):
            config_files.load_config(f"configs/{name}.py:smoke", space.overrides(point))
        kinds = {type(one).__name__ for one in space.distributions(found).values()}
        assert kinds == {"FloatDistribution", "IntDistribution", "CategoricalDistribution"}
