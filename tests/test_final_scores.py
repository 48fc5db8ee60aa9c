"""Which parameters the final scores are of: the best, a mean of several, or their average."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import train
from tests import trainer_cases
from tests.trainer_cases import SharedTrainer, journal, tiny
from training import checkpoint_reader
from training.metrics import read_metrics


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer_cases.make_data_dir(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """(split, parameters on the host) of each evaluation, in order."""
    trainer_cases.share_programs(monkeypatch)
    seen, evaluate = [], SharedTrainer.evaluate

    def watched(self: SharedTrainer, params: Any, split: str) -> dict:
        seen.append((split, jax.tree.map(np.array, params)))
        return evaluate(self, params, split)

    monkeypatch.setattr(SharedTrainer, "evaluate", watched)
    return seen


def saved(workdir: Path, step: int, what: str = "params") -> Any:
    return checkpoint_reader.load(workdir / "checkpoints", step, what)[1]


def assert_equal(got: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def script_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Makes the evaluations of validation find these losses, one after another."""
    left, evaluate = list(losses), SharedTrainer.evaluate

    def scripted(self: SharedTrainer, params: Any, split: str) -> dict:
        scores = evaluate(self, params, split)
        return scores | {"loss": left.pop(0)} if split == "validation" else scores

    monkeypatch.setattr(SharedTrainer, "evaluate", scripted)


@pytest.mark.parametrize("save_every", [2, 3, 100])
def test_early_stopping_takes_the_scores_of_the_best_checkpoint(
    save_every: int,
    tmp_path: Path,
    shared_data: Path,
    evaluated: list,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where no save falls due at the best step, and newer ones would push it out."""
    script_losses(monkeypatch, [3.0, 2.5, 2.6, 2.7, 2.55, 2.51, 2.4])
    fields = {"num_steps": 40, "eval_every": 2, "early_stopping_patience": 4, "ema_decay": 0.0}
    settings = tiny(shared_data, "lstm", **fields, save_every=save_every, keep_checkpoints=2)
    result = train.train(settings, tmp_path)
    assert result["step"] == 12
    stopped = journal(tmp_path, "early_stop")
    assert [(line["step"], line["best"]) for line in stopped] == [(12, 4)]
    split, params = evaluated[-1]
    assert split == "test"
    assert_equal(params, saved(tmp_path, 4))
    assert_equal(params, evaluated[1][1])
    with pytest.raises(AssertionError):
        assert_equal(params, saved(tmp_path, 12))
    test_row = [row for row in read_metrics(tmp_path) if row["split"] == "test"][-1]
    assert test_row["loss"] == result["scores"]["loss"]


def test_a_stop_in_the_evaluation_that_ends_the_patience_makes_no_further_step(
    tmp_path: Path, shared_data: Path, evaluated: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [2.5, 2.6, 2.7]
    script_losses(monkeypatch, losses)
    fields = {"num_steps": 40, "eval_every": 2, "save_every": 2, "ema_decay": 0.0}
    settings = tiny(shared_data, "lstm", **fields, early_stopping_patience=2, keep_checkpoints=2)
    count, validate = 0, SharedTrainer.validate

    def interrupted(self: SharedTrainer, *args: Any) -> dict:
        nonlocal count
        count += 1
        if count == 3:
            self.stop.request("the test")
        return validate(self, *args)

    monkeypatch.setattr(SharedTrainer, "validate", interrupted)
    with pytest.raises(train.Preempted):
        train.train(settings, tmp_path)
    script_losses(monkeypatch, losses[-1:])
    assert train.train(settings, tmp_path)["step"] == 6
    assert [line["step"] for line in journal(tmp_path, "early_stop")] == [6]


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_last_checkpoints_are_averaged(
    ema_decay: float, tmp_path: Path, shared_data: Path, evaluated: list
) -> None:
    fields = {"num_steps": 12, "eval_every": 6, "save_every": 2, "keep_checkpoints": 4}
    settings = tiny(shared_data, "lstm", **fields, average_checkpoints=3, ema_decay=ema_decay)
    train.train(settings, tmp_path)
    what = "ema_params" if ema_decay else "params"
    trees = [saved(tmp_path, step, what) for step in (8, 10, 12)]
    split, params = evaluated[-1]
    assert split == "test"

    def check(got: np.ndarray, *leaves: np.ndarray) -> None:
        assert got.dtype == leaves[0].dtype
        mean = np.mean(np.stack(leaves).astype(np.float64), axis=0)
        np.testing.assert_allclose(got, mean, rtol=1e-6, atol=1e-7)
        assert np.abs(got - leaves[-1]).max() > 0

    jax.tree.map(check, params, *trees)


def test_the_moving_average_is_what_is_evaluated(
    tmp_path: Path, shared_data: Path, evaluated: list
) -> None:
    """And it is the average of the parameters after each step, of the first ones too."""
    fields = {"num_steps": 6, "eval_every": 3, "save_every": 1, "keep_checkpoints": 9}
    settings = tiny(shared_data, "lstm", **fields, ema_decay=0.75, log_every=1)
    train.train(settings, tmp_path)
    assert [split for split, _ in evaluated] == ["validation", "validation", "test"]
    for (_, params), step in zip(evaluated, (3, 6, 6), strict=True):
        assert_equal(params, saved(tmp_path, step, "ema_params"))
    averages = saved(tmp_path, 1, "ema_params")
    for step in range(2, 7):
        now = saved(tmp_path, step)
        averages = jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, averages, now)
        found = saved(tmp_path, step, "ema_params")
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), averages, found)
