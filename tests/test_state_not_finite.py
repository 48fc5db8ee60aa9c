"""NaNs that no step has made: a state with one in it is never taken for a good one."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from errors import NonFiniteError
from tests import trainer_cases
from tests.storms import Storm, assert_all_caught
from tests.trainer_cases import (
    SharedTrainer,
    all_finite,
    assert_same_outcome,
    journal,
    outcome,
    tiny,
)
from training import checkpoint_reader, checkpoints, state

PARTS = ("params", "opt_state", "ema_params")
VALUES = (jnp.nan, jnp.inf, -jnp.inf)
FIELDS = {"num_steps": 6, "eval_every": 6, "save_every": 2, "log_every": 2, "max_skipped_steps": 2}


def poison(tree, place: int, value: float):
    """The tree with one number of one of its arrays replaced."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating) and x.size]
    chosen = floats[place % len(floats)]
    array = np.array(leaves[chosen])
    array.reshape(-1)[place % array.size] = value
    leaves[chosen] = jax.device_put(array, leaves[chosen].sharding)
    return jax.tree.unflatten(structure, leaves)


def struck_run(settings: dict, workdir: Path, part: str, value: float, step: int) -> None:
    """A run whose memory is struck before a step; it must end with 70, and go on after that."""
    dispatch = SharedTrainer.dispatch

    def strike(self, i, batch):
        if i == step:
            tree = poison(getattr(self.state, part), 7 * step + len(part), value)
            self.state = self.state.replace(**{part: tree})
        dispatch(self, i, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedTrainer, "dispatch", strike)
        with pytest.raises(NonFiniteError):
            train.train(settings, workdir)
    assert journal(workdir)[-1]["code"] == 70
    good = checkpoint_reader.good_steps(workdir / "checkpoints")
    assert all(saved <= step for saved in good)
    assert all(all_finite(workdir, saved) for saved in good)
    train.train(settings, workdir)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    trainer_cases.share_programs(monkeypatch)
    return tiny(trainer_cases.make_data_dir(tmp_path / "data"), "lstm", **FIELDS)


def look_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoints, "refuse_if_not_finite", lambda step, arrays: None)


def look_at_parameters_only(patch: pytest.MonkeyPatch) -> None:
    refuse = checkpoints.refuse_if_not_finite
    patch.setattr(
        checkpoints,
        "refuse_if_not_finite",
        lambda step, arrays: refuse(
            step, {name: array for name, array in arrays.items() if name.startswith("params")}
        ),
    )


def look_for_nan_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoints.np, "isfinite", lambda array: ~np.isnan(array))


BUGS = {
    "nobody looks": look_away,
    "only at parameters": look_at_parameters_only,
    "only for NaN": look_for_nan_only,
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trials", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_a_state_that_is_struck_is_not_saved(tmp_path: Path, settings: dict, trials: int) -> None:
    train.train(settings, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    cases = list(itertools.product(PARTS, VALUES))
    cases = cases[-trials:]  # the averages, which no step looks at
    with Storm("NaN and infinity in the state", trials) as storm:
        for number, (part, value) in enumerate(cases):
            with storm.trial((part, value)):
                workdir = tmp_path / str(number)
                struck_run(settings, workdir, part, value, step=2 + number % 2)
                assert_same_outcome(outcome(workdir), expected)


def test_a_check_that_looks_away_is_found_out(tmp_path: Path) -> None:
    """Of a saved state alone: the storm's criterion, without a run."""
    number = iter(range(99))
    good = state.create_state({"w": jnp.ones(3)}, train.build_optimizer(OPTIMIZER, 9)[0], True)

    def check() -> None:
        for part, value in (("ema_params", jnp.inf), ("opt_state", jnp.nan)):
            bad = good.replace(**{part: poison(getattr(good, part), 1, value)})
            directory = tmp_path / str(next(number))
            with checkpoints.Checkpointer(directory, 2, {}) as saver:
                saver.save(1, bad, {})
                with pytest.raises(NonFiniteError, match=rf"Array '{part}.*is not finite after"):
                    saver.wait()
            assert checkpoint_reader.good_steps(directory) == []

    assert_all_caught("bugs of looking for NaN", check, BUGS)


OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 1e-3,
    "schedule": {"name": "cosine", "warmup_steps": 1},
}
