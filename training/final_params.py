"""Which parameters the final scores see, for the trainer and for whoever uses a run later."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from training import checkpoint_reader


def kind(settings: Mapping[str, Any]) -> str:
    """The part of a checkpoint that is evaluated: the moving average if there is one."""
    return "ema_params" if settings["ema_decay"] else "params"


def chosen_steps(settings: Mapping[str, Any], good: Sequence[int], best: int) -> list[int]:
    """Steps of the checkpoints to average: the last k, the best one, or [] for the last state.

    Args:
        good: steps of the checkpoints on the disk, ascending.
        best: the step with the best validation loss, whether or not it is on the disk.
    """
    if settings["average_checkpoints"] > 1:
        return list(good[-settings["average_checkpoints"] :])
    if settings["early_stopping_patience"] and best in good:
        return [best]
    return []


def mean_of(folder: Path, steps: Sequence[int], what: str) -> Any:
    """The mean of that part of some checkpoints, each verified."""
    loaded = [checkpoint_reader.load(folder, step, what)[1] for step in steps]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *loaded)
