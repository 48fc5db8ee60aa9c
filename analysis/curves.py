"""Curves of several runs on one axis, and when each reaches a target. NumPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.seeds import Band, band

AXES = ("step", "tokens", "flops", "seconds")
MAX_POINTS = 400


class Curve(NamedTuple):
    """Losses of one run at rising x."""

    x: np.ndarray
    y: np.ndarray


class Binned(NamedTuple):
    """Means of values by bin.

    Attributes:
        first, last: what each bin holds, both included.
        mean: NaN where a bin is empty.
        num_values: in each bin.
    """

    first: np.ndarray
    last: np.ndarray
    mean: np.ndarray
    num_values: np.ndarray


def common_x(curves: Sequence[Curve]) -> np.ndarray:
    """Places at which all curves are known: their own points within the range that they share,
    which may be none."""
    start = max(curve.x[0] for curve in curves)
    end = min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves] + [[start, end]]))
    x = x[(x >= start) & (x <= end)]
    return x if len(x) <= MAX_POINTS else np.linspace(start, end, MAX_POINTS)


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, Band]:
    """(x, band over the runs), each run interpolated linearly between its points."""
    x = common_x(curves)
    return x, band(np.array([np.interp(x, *curve) for curve in curves]))


def reached(curve: Curve, target: float) -> float | None:
    """The first x at which the curve is at or below the target, or None: not reached.

    Between the point before and the first one below the curve is a straight line.
    """
    below = np.flatnonzero(curve.y <= target)
    if not len(below):
        return None
    i = below[0]
    if i == 0:
        return float(curve.x[0])
    (x0, x1), (y0, y1) = curve.x[i - 1 : i + 1], curve.y[i - 1 : i + 1]
    return float(x0 + (x1 - x0) * (y0 - target) / (y0 - y1))


def geometric_bins(largest: int, per_octave: int = 2) -> np.ndarray:
    """Rising whole numbers 1, 2, 3, 4, 6, 8, ... at which bins begin, the last above `largest`."""
    powers = 2.0 ** (np.arange(per_octave * 64) / per_octave)
    starts = np.unique(np.round(powers[powers < 2 * largest + 2]).astype(np.int64))
    above = np.searchsorted(starts, largest, side="right")
    return np.append(starts[:above], largest + 1)


def binned(keys: np.ndarray, values: np.ndarray, starts: np.ndarray) -> Binned:
    """Means of values whose keys lie in [starts[i], starts[i + 1])."""
    which = np.searchsorted(starts, keys, side="right") - 1
    inside = (which >= 0) & (which < len(starts) - 1)
    num = len(starts) - 1
    count = np.bincount(which[inside], minlength=num)
    total = np.bincount(which[inside], weights=values[inside], minlength=num)
    with np.errstate(invalid="ignore"):
        mean = total / count
    return Binned(starts[:-1], starts[1:] - 1, mean, count)
