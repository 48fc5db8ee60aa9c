"""A trace of chosen steps is kept, and nothing else changes."""

import gzip
import json
from pathlib import Path

import pytest

import train
from errors import ConfigError
from tests import trainer_cases
from tests.trainer_cases import arguments, assert_same_outcome, outcome, tiny
from training.profile import steps_of


def test_a_trace_holds_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    trainer_cases.share_programs(monkeypatch)
    argv = arguments(data_dir, num_steps=6, eval_every=6, save_every=6)
    train.train(trainer_cases.settings_of(argv), tmp_path / "plain")
    assert train.main([*argv, "--profile=3:4", f"--workdir={tmp_path / 'run'}"]) == 0
    [trace] = (tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))  # what TensorBoard shows
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == "train"]
    assert sorted(map(int, steps)) == [3, 4]
    names = {e.get("name", "") for e in events}
    assert any("PjitFunction" in name or "pmap" in name for name in names), sorted(names)[:50]
    assert_same_outcome(outcome(tmp_path / "run"), outcome(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_trace_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps beyond the last, and a run that goes on in the middle of them."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    trainer_cases.share_programs(monkeypatch)
    fields = {"eval_every": 6, "save_every": 6, "profile": "2:99"}
    for number, num_steps in enumerate((3, 5), start=1):
        train.train(tiny(data_dir, num_steps=num_steps, **fields), tmp_path / "run")
        folder = tmp_path / "run" / "profile"
        assert len(list(folder.rglob("perfetto_trace.json.gz"))) == number
        train.jax.profiler.start_trace(tmp_path / "other")  # refused where one is open
        train.jax.profiler.stop_trace()


def test_a_range_without_a_step_to_come_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    trainer_cases.share_programs(monkeypatch)
    argv = [*arguments(data_dir, num_steps=3, eval_every=6), f"--workdir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        patch.setattr(train.tasks, "build", lambda *_: pytest.fail("data were read"))
        assert train.main([*argv, "--profile=4:9"]) == 64
    assert capsys.readouterr().err == (
        "error: config.profile (--profile) 4:9 has no step to come: there are 3 steps.\n"
    )
    assert not (tmp_path / "run").exists()
    for profile in (["--profile=3:9"], ["--profile=3:9"], []):  # again, as from the queue
        assert train.main([*argv, *profile]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said.count("--profile=3:9 traces steps 3 to 3: there are 3 steps.") == 1
    assert train.main([*argv, "--profile=2:3"]) == 64
    assert "2:3 has no step to come: 3 of 3 steps are done." in capsys.readouterr().err
    assert train.main([*argv, "--profile=2:4", "--config.num_steps=4"]) == 0
    assert "--profile=2:4 traces steps 4 to 4: 3 of 4 steps" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3", "0:4", "4:3", "a:b", "1:2:3", "-1:2", "1:1e3", " 1:2"])
def test_what_is_no_range_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(--profile\) must be FIRST:LAST.*got"):
        tiny(tmp_path, profile=text)
    assert steps_of("7:7") == (7, 7)
    assert steps_of("") == (0, 0)
