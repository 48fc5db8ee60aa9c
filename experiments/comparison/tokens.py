"""The loss of each token of a split under the final model of a run, by place and by frequency."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from analysis.curves import Binned, binned, geometric_bins
from experiments.comparison.runs import Run
from trained import load_run, load_task, source_of

SPLIT = "validation"


class TokenLosses(NamedTuple):
    """Every predicted token of a split.

    Attributes:
        nll: in nats.
        position: tokens that the model had read, 1 for the first of a document or target.
        frequency: how often training predicts that token in an epoch.
    """

    nll: np.ndarray
    position: np.ndarray
    frequency: np.ndarray

    def by_position(self) -> Binned:
        """Mean loss against the place in the context (Kaplan et al. 2020, figure 7)."""
        return binned(self.position, self.nll, geometric_bins(int(self.position.max())))

    def by_frequency(self) -> Binned:
        """Mean loss of tokens that training has 0, 1 to 9, 10 to 99, ... times."""
        starts = [0, *(10**i for i in range(len(str(int(self.frequency.max()))) + 1))]
        return binned(self.frequency, self.nll, np.array(starts))


def token_losses(run: Run) -> TokenLosses:
    """Reads a run's final parameters and evaluates its validation split, token by token."""
    trained = load_run(run.path, kind=None)
    task = load_task(trained)
    evaluate = jax.jit(functools.partial(task.token_losses, trained.model))
    carry: Any = task.init_carry(trained.model)
    before_B: Any = 0
    found = []
    for step in range(task.num_batches(SPLIT)):
        batch = task.batch(SPLIT, step)
        position_BT, before_B = positions(batch, before_B if carry is not None else 0)
        nll_BT, carry = evaluate(trained.variables, with_carry(batch, carry))
        counts_BT = batch["weights"] > 0
        found.append(
            (np.asarray(nll_BT)[counts_BT], position_BT[counts_BT], batch["targets"][counts_BT])
        )
    nll_N, position_N, target_N = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return TokenLosses(nll_N.astype(np.float64), position_N, training_counts(task)[target_N])


def with_carry(batch: dict, carry: Any) -> dict:
    return batch if carry is None else {**batch, "carry": carry}


def positions(batch: dict, before_B: Any) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens the model has read of a document when it predicts each target.

    Args:
        before_B: for streams, how many it had read of the document that segment 1 goes on with.

    Returns:
        (position_BT, the same before_B for the next batch).
    """
    shape = batch["targets"].shape
    place_BT = np.broadcast_to(np.arange(shape[1]), shape)
    if "segments" not in batch:
        return place_BT + 1, np.zeros(shape[0], np.int64)
    segments_BT = batch["segments"]
    begins_BT = np.diff(segments_BT, axis=1, prepend=1 if np.any(before_B) else -1) != 0
    began_BT = np.maximum.accumulate(np.where(begins_BT, place_BT, 0), axis=1)
    goes_on_BT = np.maximum.accumulate(begins_BT, axis=1) == 0
    before_BT = np.broadcast_to(np.reshape(before_B, (-1, 1)), shape)
    position_BT = place_BT - began_BT + 1 + np.where(goes_on_BT, before_BT, 0)
    return position_BT, position_BT[:, -1]


def training_counts(task: Any) -> np.ndarray:
    """How often one epoch of training predicts each id."""
    counts_V = np.zeros(task.vocab_size, np.int64)
    for step in range(task.num_batches("train")):
        batch = task.batch("train", step)
        targets_N = batch["targets"][batch["weights"] > 0]
        counts_V += np.bincount(targets_N, minlength=task.vocab_size)
    return counts_V


def floor_of(settings: dict[str, Any]) -> Any:
    """The entropy of the language, from a source that knows it, or None.

    It is a bound on the loss of a token only where the tokens are the language's own words.
    """
    task = settings["task"]
    if task["name"] != "language_modelling" or task["tokenizer"]["name"] != "words":
        return None
    source = source_of(settings)
    known = getattr(source, "entropy", None)
    return known() if known and task["side"] != "both" else None
