"""Whether trained models differ on text like the validation split: paired over its rows."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis import bootstrap
from experiments.comparison.tokens import TokenLosses

NUM_RESAMPLES = 10_000


def paired_differences(tokens: Mapping[str, Sequence[TokenLosses]]) -> dict[str, Any] | None:
    """Every pair of configs by the losses of their final models, means over seeds.

    Rows of the split are drawn with replacement (analysis/bootstrap.py) and the seeds are as they
    are, where `seeds.difference` draws seeds and leaves the text as it is: each knows one of the
    two reasons for which a difference may not come again.

    Returns:
        {"num_rows", "num_tokens", "pairs": [{"first", "second", "mean", "low", "high", "p"}]},
        p adjusted for the number of pairs; None where there is one config, or where the runs have
        not the same tokens in the same rows.
    """
    first, *others = [one for of_seeds in tokens.values() for one in of_seeds]
    pairs = list(itertools.combinations(tokens, 2))
    if not pairs or not all(
        np.array_equal(first.row, one.row) and np.array_equal(first.target, one.target)
        for one in others
    ):
        return None
    weights_E = np.bincount(first.row).astype(float)
    losses = {
        label: np.mean([np.bincount(one.row, one.nll) for one in of_seeds], axis=0)
        for label, of_seeds in tokens.items()
    }
    filled_E = weights_E > 0
    changes_ME = np.array([losses[one] - losses[other] for one, other in pairs])[:, filled_E]
    found = bootstrap.compare_means(changes_ME, weights_E[filled_E], NUM_RESAMPLES, seed=0)
    numbers = zip(found.change, found.low, found.high, found.p, strict=True)
    return {
        "num_rows": int(filled_E.sum()),
        "num_tokens": len(first.row),
        "pairs": [
            {"first": one, "second": other}
            | dict(zip(("mean", "low", "high", "p"), map(float, row), strict=True))
            for (one, other), row in zip(pairs, numbers, strict=True)
        ],
    }
