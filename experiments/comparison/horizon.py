"""How far back the gradient of a comparison's language models reaches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.gradient_horizon import horizon
from analysis.seeds import band
from errors import ConfigError
from experiments.gradient_horizon import validation_rows
from trained import TrainedRun

LEAST = 1e-30  # what lies below counts as this
SHARES = (0.5, 0.9)


def horizon_of(run: TrainedRun, task: Any, say: Callable[[str], None]) -> np.ndarray | None:
    """|dL_T / ds_{T-k}| for k = 1, 2, ... of the final model on rows of validation text.

    None for an encoder-decoder, and for one whose layers are one program.
    """
    if run.model.kind != "language_model":
        return None
    inputs_BT, targets_BT = validation_rows(task)
    try:
        return horizon(run.model, run.variables["params"], inputs_BT, targets_BT[:, -1])
    except ConfigError as error:
        say(f"no gradient horizon: {error}")
        return None


def horizons(found: Mapping[str, Sequence[np.ndarray | None]]) -> dict[str, Any]:
    """Of each config the geometric mean over seeds with its band, and within how many tokens
    which share of all norms lies; configs without a horizon are left out."""
    shown = {}
    for label, of_seeds in found.items():
        norms_SK = np.array([norms for norms in of_seeds if norms is not None])
        if not norms_SK.size:
            continue
        logs = band(np.log(np.maximum(norms_SK, LEAST)))
        shares_SK = norms_SK.cumsum(1) / np.maximum(norms_SK.sum(1, keepdims=True), LEAST)
        shown[label] = {
            **{name: np.exp(value).tolist() for name, value in logs._asdict().items()},
            "share": shares_SK.mean(axis=0).tolist(),
            "within": {str(s): float((1 + (shares_SK < s).sum(1)).mean()) for s in SHARES},
        }
    return shown
