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


@pytest.mark.parametrize("text", ["3", "0:4", "4:3", "a:b", "1:2:3", "-1:2", "1:1e3", " 1:2"])
def test_what_is_no_range_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(--profile\) must be FIRST:LAST.*got"):
        tiny(tmp_path, profile=text)
    assert steps_of("7:7") == (7, 7)
    assert steps_of("") == (0, 0)
