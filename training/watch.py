"""Signs of sick training, as named warnings with the step and the layer.

| name | what is seen | thresholds |
| --- | --- | --- |
| loss_jump | a loss far above its running mean | JUMP_DEVIATIONS, JUMP_RATIO, JUMP_LEAST |
| not_finite | a step that was skipped | the first layer whose gradient is not finite |
| exploding_gradient | a norm far above its running mean, or huge | EXPLODES, HUGE |
| vanishing_gradient | the earliest layer of a stack gets almost none | VANISHES, PATIENCE |
| still_layer | updates do not move a layer while the rest moves | STILL, STILL_BESIDE, PATIENCE |
| weights_growing, weights_shrinking | exponentially | WINDOW, FACTOR, STEADY |

The first three look at every step, the others at the measurements that stand in the metrics,
every `diagnose_every` steps. The gradient is the one before clipping: what clipping hides
is what is looked for (Pascanu et al. 2013, section 3.2).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.layer_norms import MEASURED, stacks

DECAY = 0.95  # of the running means: they look back some 20 steps
SETTLE = 20  # steps before a running mean is trusted
QUIET = 200  # steps in which a warning is not repeated for the same layer
JUMP_DEVIATIONS = 6.0  # standard deviations of the loss,
JUMP_RATIO = 1.25  # and this many times its running mean,
JUMP_LEAST = 0.1  # and this many nats: the noise of a loss near 0 is no jump
EXPLODES = 20.0  # times the running geometric mean of the gradient's norm
HUGE = 1e3  # a norm of the mean gradient per token that no healthy model had
PATIENCE = 10  # measurements in a row
VANISHES = 1e-3  # gradient of the earliest layer over that of the latest
STILL = 1e-6  # update over weight of a layer; healthy training has about 1e-3
STILL_BESIDE = 1e-2  # and this much of the same ratio of the whole model, or all are still
WINDOW = 8  # measurements over which weights are compared
FACTOR = 3.0  # by which they grow or shrink within the window
STEADY = 0.8  # the later half at this share of the rate of the earlier: no mere settling
TINY = 1e-30


class Warned(NamedTuple):
    """A sign that something is wrong; step counts updates done, as the metrics do."""

    step: int
    name: str
    layer: str
    text: str

    def __str__(self) -> str:
        where = f" in {self.layer}" if self.layer else ""
        return f"step {self.step}: warning {self.name}{where}: {self.text}"


class Watch:
    """Looks at each step of a run; `state` goes into the checkpoint, so that a resumed run
    warns as an uninterrupted one.

    Args:
        layers: their names, as layer_norms orders them.
        every: steps between measurements, config.diagnose_every.
        state: of an earlier Watch.
    """

    def __init__(
        self, layers: Sequence[str], every: int, state: Mapping[str, Any] | None = None
    ) -> None:
        state = state or {}
        self.layers, self.every, self._stacks = list(layers), every, stacks(layers)
        self._steps = state.get("steps", 0)
        self._loss, self._variance = state.get("loss", 0.0), state.get("variance", 0.0)
        self._log_norms = list(state.get("log_norms", [0.0] * (len(self.layers) + 1)))
        self._weights: list[list[float]] = [list(row) for row in state.get("weights", [])]
        self._in_row: dict[str, int] = dict(state.get("in_row", {}))
        self._last: dict[str, int] = dict(state.get("last", {}))

    def state(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "steps": self._steps,
            "loss": self._loss,
            "variance": self._variance,
            "log_norms": list(self._log_norms),
            "weights": [list(row) for row in self._weights],
            "in_row": dict(self._in_row),
            "last": dict(self._last),
        }

    def add(self, step: int, record: Mapping[str, Any]) -> list[Warned]:
        """What is new at a step, from its record on the host.

        Args:
            step: updates done, this one included.
            record: "sums" and "scalars" of the step, and "layers": norms by MEASURED.
        """
        total, weight = record["sums"]["loss"]
        norms = {name: np.asarray(record["layers"][name], np.float64) for name in MEASURED}
        if record["scalars"]["skipped"]:
            found = list(self._not_finite(norms["gradient"]))
        else:
            found = [*self._jump(float(total) / float(weight))]
            whole = float(record["scalars"]["gradient_norm"])
            found += self._exploding(whole, norms["gradient"])
            self._steps += 1
            if step % self.every == 0:
                found += [*self._flow(norms), *self._exponential(norms["weight"])]
        return [
            warned for name, layer, text in found if (warned := self._say(step, name, layer, text))
        ]

    def row(self, record: Mapping[str, Any]) -> dict[str, float]:
        """The measurements of a step for the metrics: {"gradient/embed": 0.2, ...}."""
        pairs = [(name, zip(self.layers, record["layers"][name], strict=True)) for name in MEASURED]
        return {f"{name}/{layer}": float(norm) for name, norms in pairs for layer, norm in norms}

    def _say(self, step: int, name: str, layer: str, text: str) -> Warned | None:
        key = f"{name} {layer}"
        if step - self._last.get(key, -QUIET) < QUIET:
            return None
        self._last[key] = step
        return Warned(step, name, layer, text)

    def _not_finite(self, gradient: np.ndarray) -> Iterator[tuple[str, str, str]]:
        bad = np.flatnonzero(~np.isfinite(gradient))
        layer = self.layers[bad[0]] if len(bad) else ""
        what = f"the gradient of {len(bad)} of {len(gradient)} layers" if len(bad) else "the loss"
        yield "not_finite", layer, f"{what} is not finite; the step was skipped"

    def _jump(self, loss: float) -> Iterator[tuple[str, str, str]]:
        above, mean = loss - self._loss, self._loss
        most = max(JUMP_DEVIATIONS * math.sqrt(self._variance), (JUMP_RATIO - 1) * mean, JUMP_LEAST)
        if self._steps >= SETTLE and above > most:
            yield "loss_jump", "", f"loss {loss:.4g} after a running mean of {mean:.4g}"
        share = 1 - DECAY if self._steps else 1.0
        self._loss += share * above
        self._variance = (1 - share) * (self._variance + share * above**2)

    def _exploding(self, whole: float, gradient: np.ndarray) -> Iterator[tuple[str, str, str]]:
        logs = np.log(np.maximum([whole, *gradient], TINY))
        above = logs - self._log_norms
        leaps = self._steps >= SETTLE and above[0] > math.log(EXPLODES)
        if leaps or whole > HUGE:
            worst = int(np.argmax(above[1:] if leaps else logs[1:]))
            usual = f", {math.exp(above[0]):.3g} times its running mean" if leaps else ""
            text = f"gradient norm {gradient[worst]:.3g} of {whole:.3g}{usual}"
            yield "exploding_gradient", self.layers[worst], text
        share = 1 - DECAY if self._steps else 1.0
        self._log_norms = (self._log_norms + share * above).tolist()

    def _lasts(self, key: str, sick: bool) -> bool:
        """Whether something is so for PATIENCE measurements in a row."""
        self._in_row[key] = self._in_row.get(key, 0) + 1 if sick else 0
        return self._in_row[key] >= PATIENCE

    def _flow(self, norms: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, str]]:
        """Layers that get no gradient, and layers that do not move."""
        gradient = dict(zip(self.layers, norms["gradient"].tolist(), strict=True))
        for first, last in self._stacks:
            ratio = gradient[first] / max(gradient[last], TINY)
            if self._lasts(f"vanishing {first}", ratio < VANISHES and gradient[last] > 0):
                text = f"gradient norm {ratio:.1e} of that of {last} for {PATIENCE} measurements"
                yield "vanishing_gradient", first, text
        update, weight = norms["update"], np.maximum(norms["weight"], TINY)
        whole = math.hypot(*update) / math.hypot(*weight)
        for layer, ratio in zip(self.layers, (update / weight).tolist(), strict=True):
            still = ratio < min(STILL, STILL_BESIDE * whole)
            if self._lasts(f"still {layer}", still):
                text = f"updates are {ratio:.1e} of the weights for {PATIENCE} measurements"
                yield "still_layer", layer, text

    def _exponential(self, weight: np.ndarray) -> Iterator[tuple[str, str, str]]:
        self._weights.append(np.log(np.maximum(weight, TINY)).tolist())
        del self._weights[:-WINDOW]
        if len(self._weights) < WINDOW:
            return
        change_WN = np.diff(self._weights, axis=0)
        half = len(change_WN) // 2
        early_N, late_N = change_WN[:half].sum(0), change_WN[-half:].sum(0)
        total_N = change_WN.sum(0)
        for n, layer in enumerate(self.layers):
            steady = (change_WN[:, n] * total_N[n] > 0).all()
            if abs(total_N[n]) < math.log(FACTOR) or not steady:
                continue
            if abs(late_N[n]) >= STEADY * abs(early_N[n]):
                name = "weights_growing" if total_N[n] > 0 else "weights_shrinking"
                steps = (WINDOW - 1) * self.every
                text = f"norm times {math.exp(total_N[n]):.3g} in {steps} steps, to {weight[n]:.3g}"
                yield name, layer, text
