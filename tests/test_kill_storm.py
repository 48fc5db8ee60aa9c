"""200 SIGKILLs over four families of models, and what a resumed run must not forget."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tasks
import train
from tests import trainer_cases
from tests.kill_cases import FIELDS, kill_again_and_again, random_hits, run_undisturbed
from tests.storms import assert_all_caught
from tests.test_resume import as_after
from tests.trainer_cases import SharedTrainer, arguments, assert_same_outcome, outcome, tiny
from training import trainer

FAMILIES = ("lstm", "transformer", "convolutional", "language model")
# 50 kills for each family.
EACH_PHASE = {
    "data": 5,
    "restore": 6,
    "step": 13,
    "save": 8,
    "manifest": 12,
    "evaluate": 6,
}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_kills_change_nothing(tmp_path: Path, family: str) -> None:
    (tmp_path / "whole").mkdir()
    uninterrupted = run_undisturbed(tmp_path / "whole", family)
    data_dir = trainer_cases.make_data_dir(tmp_path / "data", shared=False)
    hits = random_hits(FAMILIES.index(family), EACH_PHASE)
    assert len(hits) == 50
    argv = arguments(data_dir, family, **FIELDS)
    assert kill_again_and_again(argv, tmp_path, hits, uninterrupted) == set(EACH_PHASE)


# ------------------------------------------------------------- what the comparison must find


def forget(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A trainer that begins anew with something that a checkpoint holds."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        restore = SharedTrainer.restore

        def forgetful(self, saver):
            fresh = getattr(self, name)
            step = restore(self, saver)
            setattr(self, name, fresh)
            return step

        patch.setattr(SharedTrainer, "restore", forgetful)

    return plant


def change_state(change: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    """A trainer whose state is another after it is restored."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        restore = SharedTrainer.restore

        def changed(self, saver):
            step = restore(self, saver)
            self.state = change(self.state) if step else self.state
            return step

        patch.setattr(SharedTrainer, "restore", changed)

    return plant


def begin_batches_anew(patch: pytest.MonkeyPatch) -> None:
    batch = tasks.Translation.batch
    begun: list[int] = []

    def other(self, split, step):
        begun.append(step)
        return batch(self, split, step - begun[0] if split == "train" else step)

    patch.setattr(tasks.Translation, "batch", other)


def draw_keys_anew(patch: pytest.MonkeyPatch) -> None:
    fold_in = train.jax.random.fold_in
    patch.setattr(trainer.jax.random, "fold_in", lambda key, data: fold_in(key, data + 7))


BUGS = {
    "the counters": forget("meter"),
    "the warnings": forget("watch"),
    "the moments": change_state(
        lambda s: s.replace(opt_state=trainer.jax.tree.map(lambda x: 0 * x, s.opt_state))
    ),
    "the moving average": change_state(
        lambda s: s.replace(ema_params=trainer.jax.tree.map(lambda x: 1 * x, s.params))
    ),
    "the step of the state": change_state(lambda s: s.replace(step=0 * s.step)),
    "the place in the data": begin_batches_anew,
    "the random keys": draw_keys_anew,
}


@pytest.mark.heavy
def test_a_resumed_run_that_forgets_something_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison that the storms make, of runs that go on with a bug."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    trainer_cases.share_programs(monkeypatch)
    settings = tiny(data_dir, "transformer", **FIELDS, keep_checkpoints=20)
    train.train(settings, tmp_path / "whole")
    expected, number = outcome(tmp_path / "whole"), iter(range(99))

    def resume() -> None:
        workdir = as_after(tmp_path / "whole", 4, tmp_path / str(next(number)))
        train.train(settings, workdir)
        assert_same_outcome(outcome(workdir), expected)

    assert_all_caught("bugs of resuming", resume, BUGS)
