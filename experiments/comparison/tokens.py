"""The loss of each token of a split under the final model of a run, by place and by frequency."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from analysis.curves import Binned, binned, geometric_bins
from trained import TrainedRun, source_of

SPLIT = "validation"


class TokenLosses(NamedTuple):
    """Every predicted token of a split.

    Attributes:
        nll: in nats.
        row: of the split that it stands in, counted from 0: an example, or several in one row
            of a language model.
        target: its id.
        position: tokens that the model had read, 1 for the first of a document or target.
        frequency: how often training predicts that token in an epoch.
    """

    nll: np.ndarray
    row: np.ndarray
    target: np.ndarray
    position: np.ndarray
    frequency: np.ndarray

    def by_position(self) -> Binned:
        """Mean loss against the place in the context (Kaplan et al. 2020, figure 7)."""
        return binned(self.position, self.nll, geometric_bins(int(self.position.max())))

    def by_frequency(self) -> Binned:
        """Mean loss of tokens that training has 0, 1 to 9, 10 to 99, ... times."""
        starts = [0, *(10**i for i in range(len(str(int(self.frequency.max()))) + 1))]
        return binned(self.frequency, self.nll, np.array(starts))


class Floor(NamedTuple):
    """What the model that made a text loses on it.

    Attributes:
        per_token: mean over the very sentences of the split.
        by_position: the same at each place.
        entropy, standard_error: what it would lose on endless text, simulated.
    """

    per_token: float
    by_position: Sequence[float]
    entropy: float
    standard_error: float


def token_losses(run: TrainedRun, task: Any) -> TokenLosses:
    """Evaluates the validation split under a run's final parameters, token by token."""
    nll_N, row_N, target_N, position_N = predictions(run, task, SPLIT)
    frequency_N = training_counts(task)[target_N]
    return TokenLosses(nll_N, row_N, target_N, position_N, frequency_N)


def predictions(run: TrainedRun, task: Any, split: str) -> tuple[np.ndarray, ...]:
    """(nll, row, target, position) of each predicted token of a split; see TokenLosses."""
    evaluate = jax.jit(functools.partial(task.token_losses, run.model))
    carry: Any = task.init_carry(run.model)
    before_B: Any = 0
    found, num_rows = [], 0
    for step in range(task.num_batches(split)):
        batch = task.batch(split, step)
        position_BT, before_B = positions(batch, before_B if carry is not None else 0)
        nll_BT, carry = evaluate(run.variables, with_carry(batch, carry))
        counts_BT = batch["weights"] > 0
        row_BT = np.broadcast_to(num_rows + np.arange(len(counts_BT))[:, None], counts_BT.shape)
        arrays = np.asarray(nll_BT), row_BT, batch["targets"], position_BT
        found.append([array[counts_BT] for array in arrays])
        num_rows += len(counts_BT)
    nll_N, row_N, target_N, position_N = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    return nll_N.astype(np.float64), row_N, target_N, position_N


def with_carry(batch: dict, carry: Any) -> dict:
    return batch if carry is None else {**batch, "carry": carry}


def positions(batch: dict, before_B: Any) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens the model has read of a document when it predicts each target; of a
    masked language model, which reads the whole row, where in it the target stands.

    Args:
        before_B: for streams, how many it had read of the document that segment 1 goes on with.

    Returns:
        (position_BT, the same before_B for the next batch).
    """
    shape = batch["targets"].shape
    place_BT = batch.get("places", np.broadcast_to(np.arange(shape[1]), shape))
    if "segments" not in batch or "places" in batch:
        return place_BT + 1, np.zeros(shape[0], np.int64)
    segments_BT = np.abs(batch["segments"])  # a minus marks a prefix
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


def floor_of(settings: dict[str, Any]) -> Floor | None:
    """What the model that made the validation split loses on it, if the source knows it.

    It is a bound on the loss of a token only where the tokens are the language's own words.
    """
    task = settings["task"]
    if task["name"] != "language_modelling" or task["tokenizer"]["name"] != "words":
        return None
    source: Any = source_of(settings)
    if not hasattr(source, "loss_of_truth") or task["side"] == "both":
        return None
    losses_NT = source.loss_of_truth([example.target for example in source.pairs(SPLIT)])
    endless = source.entropy()
    return Floor(
        float(losses_NT.mean()),
        losses_NT.mean(axis=0).tolist(),
        endless.per_token,
        endless.standard_error,
    )
