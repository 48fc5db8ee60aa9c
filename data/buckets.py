"""A handful of shapes for pairs of any length, with little padding.

Every shape is compiled once, so there must be few; a pair goes to the first shape that holds
it, so they must fit the data. The shapes form a chain, each at least as wide as the one
before it on both sides, and the chain is the best one over a grid of lengths: the grid's
lines are quantiles of the lengths, rounded up to a multiple of 8.
"""

from typing import NamedTuple

import numpy as np

MULTIPLE = 8  # of lengths and of rows: what vector units and up to eight devices divide
NUM_QUANTILES = 24


class Shape(NamedTuple):
    """Rows of a batch and the width of its two sides, in tokens."""

    num_rows: int
    source_length: int
    target_length: int


def choose_shapes(
    lengths: np.ndarray, num_buckets: int, tokens_per_batch: int, max_length: int
) -> list[Shape]:
    """The chain of at most num_buckets shapes that pads the least.

    Args:
        lengths: (examples, 2), tokens of source and target; none above max_length.
        num_buckets: shapes, at least 1.
        tokens_per_batch: a batch has about this many places on its longer side, padding
            included, and not more unless 8 rows of the shape already have.
        max_length: no shape is wider.
    """
    grid = [_levels(side, max_length) for side in lengths.T]
    widths = np.array([(s, t) for s in grid[0] for t in grid[1]])
    cells = [np.searchsorted(levels, side) for levels, side in zip(grid, lengths.T, strict=True)]
    histogram = np.zeros((len(grid[0]), len(grid[1])))
    np.add.at(histogram, tuple(cells), 1)
    held = histogram.cumsum(0).cumsum(1).ravel()  # pairs that fit into each candidate shape
    chain = _best_chain(widths, held, num_buckets)
    return [shape_of(int(widths[i, 0]), int(widths[i, 1]), tokens_per_batch) for i in chain]


def shape_of(source_length: int, target_length: int, tokens_per_batch: int) -> Shape:
    """As many rows, a multiple of 8, as the budget of tokens allows on the longer side."""
    fitting = tokens_per_batch // max(source_length, target_length) // MULTIPLE * MULTIPLE
    return Shape(max(fitting, MULTIPLE), source_length, target_length)


def assign(lengths: np.ndarray, shapes: list[Shape]) -> np.ndarray:
    """The number of the first shape that holds each pair; len(shapes) where none does."""
    widths = np.array([shape[1:] for shape in shapes])
    # A chain: the first that is wide enough on both sides is the later of the two sides'.
    sides = [np.searchsorted(widths[:, side], lengths[:, side]) for side in (0, 1)]
    return np.maximum(*sides)


def _levels(lengths: np.ndarray, max_length: int) -> np.ndarray:
    quantiles = np.quantile(lengths, np.linspace(0, 1, NUM_QUANTILES + 1)[1:], method="higher")
    return np.unique(np.minimum(-(-quantiles // MULTIPLE) * MULTIPLE, max_length)).astype(int)


def _best_chain(widths: np.ndarray, held: np.ndarray, num_buckets: int) -> list[int]:
    """Candidates, narrow to wide and ending in the widest, with the fewest places in all.

    Dynamic programming over the last shape of the chain: a shape costs its two widths for
    each pair that it holds and the shape before it does not.
    """
    places = widths.sum(1)
    # wider[i, j]: j may follow i
    wider = (widths[:, None] <= widths[None]).all(-1)
    step = np.where(wider, (held[None] - held[:, None]) * places[None], np.inf)
    cost, previous = held * places, []
    for _ in range(num_buckets - 1):
        through = cost[:, None] + step  # following oneself costs nothing: fewer shapes are allowed
        previous.append(through.argmin(0))
        cost = through.min(0)
    chain = [len(widths) - 1]
    for back in reversed(previous):
        chain.append(int(back[chain[-1]]))
    return sorted(set(chain))
