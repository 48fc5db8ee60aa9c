"""Equal budgets for models that differ: the same parameters, or the same work."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import models
import registry
from errors import ConfigError

TOLERANCE = 0.02  # two budgets within this are matched
MATCHES = ("params", "flops", "walltime", "tokens")


def non_embedding_parameters(block: Mapping[str, Any], path: str = "config.model") -> int:
    """Parameters but for those with an axis of words (Kaplan et al. 2020, section 2.1).

    Embeddings and output layers name that axis "vocab". Nothing is computed or compiled.
    """
    return _counted(json.dumps(dict(block), sort_keys=True), path)


@functools.lru_cache(maxsize=1024)
def _counted(block: str, path: str) -> int:
    given = json.loads(block)
    model = registry.build("model", models.MODELS, given, path, vocab_size=8)
    boxed = jax.eval_shape(lambda: models.init_boxed(model, jax.random.key(0)))
    leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    kept = [leaf for leaf in leaves if "vocab" not in getattr(leaf, "names", ())]
    return sum(leaf.size for leaf in jax.tree.leaves(nn.meta.unbox(kept)))


class Widths(NamedTuple):
    """A model's number of parameters as a function of two widths.

    Parameters are matrices and vectors whose sides are multiples of the widths, so that

      n(w, f) = a + b w + c f + d w^2 + e w f + g f^2,

    which six counts determine exactly.

    Attributes:
        start: the widths (w, f) of the block.
        step: w must be a multiple of it.
        coefficients: a to g.
    """

    start: tuple[int, int]
    step: int
    coefficients: tuple[float, ...]

    @classmethod
    def of(cls, block: Mapping[str, Any], fields: Sequence[str]) -> "Widths":
        """Counts six models. `fields` are the names of w and f; heads divide w evenly."""
        step = 2 * block.get("num_heads", 1)
        start = block[fields[0]], block[fields[1]]
        h, k = step, max(1, start[1] // 4)
        moves = ((0, 0), (h, 0), (2 * h, 0), (0, k), (0, 2 * k), (h, k))
        points = [(start[0] + dw, start[1] + df) for dw, df in moves]
        counts = [
            non_embedding_parameters({**block, fields[0]: w, fields[1]: f}) for w, f in points
        ]
        return cls(start, step, tuple(np.linalg.solve([_terms(*p) for p in points], counts)))

    def parameters(self, w: float, f: float) -> float:
        """n(w, f)."""
        return sum(c * t for c, t in zip(self.coefficients, _terms(w, f), strict=True))


def _terms(w: float, f: float) -> tuple[float, ...]:
    return 1.0, w, f, w * w, w * f, f * f


def match_parameters(
    block: Mapping[str, Any], fields: Sequence[str], target: int, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The block at the widths at which it has `target` non-embedding parameters.

    Both widths grow by one factor; then the second is tuned, because heads must divide the
    first. Of the widths within a quarter of the tolerance those nearest to the old ratio win.

    Args:
        fields: names of the two widths, the one that heads divide first.

    Raises:
        ConfigError: no widths come within the tolerance.
    """
    widths = Widths.of(block, fields)
    (w0, f0), step = widths.start, widths.step
    factor = _root(lambda s: widths.parameters(s * w0, s * f0), target)
    lower = max(step, int(factor * w0) // step * step)
    found = []
    for w in (lower, lower + step):
        exact = _root(functools.partial(widths.parameters, w), target)
        for f in {round(f0 * w / w0), math.floor(exact), math.ceil(exact)} - {0}:
            error = abs(widths.parameters(w, f) / target - 1)
            found.append((error > tolerance / 4, abs(math.log(f * w0 / (f0 * w))), error, w, f))
    near = [row for row in found if not row[0]]
    *_, w, f = min(near) if near else min(found, key=lambda row: row[2])
    matched = {**block, fields[0]: w, fields[1]: f}
    count = non_embedding_parameters(matched)
    if abs(count / target - 1) > tolerance:
        raise ConfigError(
            f"No {fields[0]} and {fields[1]} of {block['name']} give {target:,} non-embedding "
            f"parameters within {tolerance:.0%}; the nearest are {w} and {f} with {count:,}."
        )
    return matched


def _root(function: Callable[[float], float], target: float) -> float:
    """Where a rising function of numbers above 0 reaches the target; near 0 if it begins above."""
    low, high = 1e-9, 1.0
    while function(high) < target and high < 1e9:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < target else (low, middle)
    return high


def steps_for(costs: Iterable[float], budget: float) -> int:
    """How many steps come nearest to a budget, at least one; `costs` are those of each step."""
    before = 0.0
    for step, total in enumerate(itertools.accumulate(costs), 1):
        if total >= budget:
            return step if step == 1 or total - budget <= budget - before else step - 1
        before = total
    raise ConfigError(f"The steps end before the budget of {budget:.6g}.")


def spread(budgets: Iterable[float]) -> float:
    """Largest over smallest, minus 1."""
    values = list(budgets)
    return max(values) / min(values) - 1
