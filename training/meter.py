"""What a run has counted: sums since the last row, and totals since the first step."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Sums = Mapping[str, tuple[Any, Any]]


def means(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """{name: sum / weight}, and the perplexity of "nll", or "forward_nll", instead of it."""
    values = {k: total / weight if weight else math.nan for k, (total, weight) in totals.items()}
    for name in [name for name in values if name.endswith("nll")]:
        perplexity = math.exp(min(values.pop(name), 700.0))
        values[f"{name.removesuffix('nll')}perplexity"] = perplexity
    return values


def add_sums(totals: dict[str, tuple[float, float]], sums: Sums) -> None:
    """Adds sums of a step, in float64 on the host."""
    for name, (total, weight) in sums.items():
        old = totals.get(name, (0.0, 0.0))
        totals[name] = (old[0] + float(total), old[1] + float(weight))


class Meter:
    """Counters of a run; `state` goes into the checkpoint, so that a resumed run's rows are
    those of an uninterrupted one.

    Attributes:
        totals: tokens, examples, flops (model FLOPs) and seconds of training so far.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.totals = {"tokens": 0, "examples": 0, "flops": 0, "seconds": 0.0}
        self.totals.update(state.get("totals", {}))
        self._sums = {k: tuple(v) for k, v in state.get("sums", {}).items()}
        self._scalars = dict(state.get("scalars", {}))
        self._steps = state.get("steps", 0)
        self._mark = dict(state.get("mark", self.totals))

    def state(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "totals": dict(self.totals),
            "sums": {k: list(v) for k, v in self._sums.items()},
            "scalars": dict(self._scalars),
            "steps": self._steps,
            "mark": dict(self._mark),
        }

    def add(self, record: Mapping[str, Any], counts: Mapping[str, int], seconds: float) -> None:
        """Adds one step: its record from the device, its counts and its time."""
        record = jax.tree.map(np.asarray, record)
        add_sums(self._sums, record["sums"])
        for name, value in record["scalars"].items():
            self._scalars[name] = self._scalars.get(name, 0.0) + float(value)
        self._steps += 1
        self.totals["seconds"] += seconds
        for name, value in counts.items():
            self.totals[name] += value

    def row(self, learning_rate: float) -> dict[str, float]:
        """Means since the last row, and the totals; starts a new row.

        gradient_norm and clipped_norm are means of the norm before and after clipping,
        clip_rate the share of steps that were clipped, skipped their number of non-finite
        steps.
        """
        values = means(self._sums)
        steps = max(1, self._steps)
        for name in ("gradient_norm", "clipped_norm"):
            values[name] = self._scalars.get(name, 0.0) / steps
        values["clip_rate"] = self._scalars.get("clipped", 0.0) / steps
        values["skipped"] = int(self._scalars.get("skipped", 0))
        values["learning_rate"] = learning_rate
        spent = self.totals["seconds"] - self._mark["seconds"]
        done = self.totals["tokens"] - self._mark["tokens"]
        values["tokens_per_second"] = done / spent if spent > 0 else 0.0
        self._sums, self._scalars, self._steps = {}, {}, 0
        self._mark = dict(self.totals)
        return values | self.totals
