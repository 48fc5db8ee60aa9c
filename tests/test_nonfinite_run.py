"""A run meets NaN and infinity: nothing that it learnt is harmed, and it ends in time."""

from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
import train
from errors import NonFiniteError
from tests import trainer_cases
from tests.trainer_cases import all_finite, arguments, arrays, journal, rows, settings_of, tiny

KINDS = (
    "loss NaN",
    "loss +inf",
    "loss -inf",
    "gradient NaN",
    "gradient inf",
    "weights of the batch NaN",
    "weights of the batch inf",
)
COUNTERS = {"['step']", "['skipped']", "['skipped_in_row']"}
NUM_STEPS = 2 * len(KINDS) + 2


class Poisoned(tasks.Translation):
    """Translation with a chosen evil at chosen steps of training."""

    evils: ClassVar[dict[int, str]] = {}

    def batch(self, split: str, step: int) -> dict:
        batch = super().batch(split, step)
        kind = self.evils.get(step, "") if split == "train" else ""
        number = KINDS.index(kind) if kind else -1
        return batch | {"evil": np.full(len(batch["index"]), number, np.int32)}

    def loss(self, model, variables, batch, key, train):
        evil = batch["evil"][0]
        values = jnp.array([jnp.nan, jnp.inf, -jnp.inf, jnp.nan, jnp.inf, jnp.nan, jnp.inf])
        value = jnp.where(evil >= 0, values[evil], 0.0)
        in_weights, in_gradient = evil >= 5, (evil == 3) | (evil == 4)
        weights = batch["weights"] + jnp.where(in_weights, value, 0.0)
        sums = super().loss(model, variables, batch | {"weights": weights}, key, train)
        total, weight = sums["loss"]
        x = jax.tree.leaves(variables["params"])[0].ravel()[0]
        # Zero with a slope of NaN (from 0 * inf) or of infinity: the loss itself is finite.
        flat = jnp.where(evil == 3, 0.0 * x, x - jax.lax.stop_gradient(x))
        slope = jnp.where(in_gradient, jnp.sqrt(jnp.where(in_gradient, flat, 1.0)), 0.0)
        bad_loss = jnp.where((evil >= 0) & (evil < 3), value, 0.0)
        return sums | {"loss": (total + bad_loss + slope, weight)}


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer_cases.make_data_dir(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer_cases.share_programs(monkeypatch)
    monkeypatch.setitem(tasks.TASKS, "translation", Poisoned)


FIELDS = {"num_steps": NUM_STEPS, "eval_every": NUM_STEPS, "save_every": 1, "log_every": 1}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trials", [len(KINDS), pytest.param(111, marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_leaves_every_bit_as_it_was(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    """Every second step meets one of the evils; with nine struck states they are 120 trials."""
    evils = {2 * i + 1: KINDS[i % len(KINDS)] for i in range(trials)}
    num_steps = 2 * trials + 2
    monkeypatch.setattr(Poisoned, "evils", evils)
    fields = FIELDS | {"num_steps": num_steps, "eval_every": num_steps}
    settings = tiny(shared_data, "lstm", keep_checkpoints=num_steps, **fields)
    train.train(settings, tmp_path)
    for step in range(1, num_steps):
        before, after = arrays(tmp_path, step), arrays(tmp_path, step + 1)
        moved = {name for name in after if after[name] != before[name]}
        if step in evils:
            assert moved <= COUNTERS, (evils[step], moved)
            assert "['skipped']" in moved
        else:
            moving = {name for name in after if name.startswith(("['params']", "['ema_params']"))}
            assert len(moved & moving) > len(moving) // 2
    assert all(all_finite(tmp_path, step) for step in range(1, num_steps + 1))
    assert [line["step"] for line in journal(tmp_path, "skip")] == sorted(evils)
    assert all(line["in_row"] == 1 for line in journal(tmp_path, "skip"))
    skipped = [row for row in rows(tmp_path, "train") if '"skipped": 1' in row]
    assert len(skipped) == len(evils)
    print(f"\nstorm NaN and infinity in a step: {trials} tried, {len(evils)} passed")


@pytest.mark.parametrize("kind", ["loss NaN", "gradient inf"])
def test_too_many_in_a_row_end_the_run_with_70(
    kind: str,
    tmp_path: Path,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    """Three are allowed; two, and later two more, are not three in a row."""
    bad = [2, 3, 5, 6, 8, 9, 10, 11, 12]
    monkeypatch.setattr(Poisoned, "evils", dict.fromkeys(bad, kind))
    fields = {"keep_checkpoints": NUM_STEPS, "max_skipped_steps": 3, **FIELDS}
    argv = [*arguments(shared_data, "lstm", **fields), f"--workdir={tmp_path / 'run'}"]
    assert train.main(argv) == 70
    captured = capfd.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "not finite in 3 steps in a row, the last of them step 10" in said[0]
    assert [line["step"] for line in journal(tmp_path / "run", "skip")] == bad[:7]
    assert journal(tmp_path / "run")[-1]["code"] == 70
    steps = trainer_cases.checkpoint_reader.good_steps(tmp_path / "run/checkpoints")
    assert steps == list(range(1, 11))
    assert all(all_finite(tmp_path / "run", step) for step in steps)
    last, good = arrays(tmp_path / "run", 10), arrays(tmp_path / "run", 8)
    assert {name for name in last if last[name] != good[name]} <= COUNTERS
    # The same again meets the same; without the evil it goes on.
    with pytest.raises(NonFiniteError):
        train.train(settings_of(argv[:-1]), tmp_path / "run")
    monkeypatch.setattr(Poisoned, "evils", {})
    assert train.train(settings_of(argv[:-1]), tmp_path / "run")["step"] == NUM_STEPS
