"""A run that was interrupted ends as if it had not been."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import train
from tests import trainer_cases
from tests.trainer_cases import SharedTrainer, as_after, journal, outcome, tiny

NUM_STEPS = 40


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer_cases.make_data_dir(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer_cases.share_programs(monkeypatch)


# A third of them, at all places within a row of three, with the ends of epochs and evaluations.
SOME_STEPS = (1, 2, 3, 6, 10, 13, 17, 20, 23, 26, 30, 34, 39, 40)
CASES = [
    ("transformer", SOME_STEPS),
    ("lstm", (2, 13, 30)),
    pytest.param("transformer", range(1, NUM_STEPS + 1), marks=pytest.mark.slow),
    pytest.param("lstm", range(1, NUM_STEPS + 1), marks=pytest.mark.slow),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("model", "steps"), CASES, ids=["transformer", "lstm", "transformer-all", "lstm-all"]
)
def test_a_run_resumed_at_any_step_ends_bit_for_bit_like_one_that_was_not_interrupted(
    tmp_path: Path, shared_data: Path, model: str, steps: Sequence[int]
) -> None:
    """With dropout, clipping, a moving average, rows of three steps, and epochs of 13 batches."""
    fields = {"num_steps": NUM_STEPS, "eval_every": 10, "keep_checkpoints": NUM_STEPS + 1}
    settings = tiny(shared_data, model, **fields, save_every=1)
    train.train(settings, tmp_path / "whole")
    expected, batches = outcome(tmp_path / "whole"), SharedTrainer.batches[:]
    assert [step for step, _ in batches] == list(range(NUM_STEPS))
    assert json.loads(trainer_cases.rows(tmp_path / "whole", "train")[0])["clip_rate"] > 0
    for step in steps:
        workdir = as_after(tmp_path / "whole", step, tmp_path / "resumed")
        SharedTrainer.batches.clear()
        train.train(settings | {"save_every": NUM_STEPS}, workdir)
        assert journal(workdir, "restore")[-1]["step"] == step
        assert SharedTrainer.batches == batches[step:]
        trainer_cases.assert_same_outcome(outcome(workdir), expected)
        shutil.rmtree(workdir)
    print(f"{len(steps)} resumed runs")


def test_a_run_without_a_checkpoint_starts_again(tmp_path: Path, shared_data: Path) -> None:
    """Killed before its first save: its directory has a journal and perhaps no more."""
    settings = tiny(shared_data, num_steps=3, eval_every=3)
    train.train(settings, tmp_path / "whole")
    for number, left in enumerate([["journal.jsonl"], ["journal.jsonl", "config.json"]]):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        for name in left:
            shutil.copy(tmp_path / "whole" / name, workdir)
        train.train(settings, workdir)
        trainer_cases.assert_same_outcome(outcome(workdir), outcome(tmp_path / "whole"))
