"""Resampling of examples, for intervals of scores (Efron & Tibshirani 1993)."""

from collections.abc import Iterator

import numpy as np

ROWS = 500  # resamples held at once


def resamples(num_examples: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is drawn, (up to ROWS, E) at a time; the same for each seed."""
    random = np.random.default_rng(seed)
    even = np.full(num_examples, 1 / num_examples)
    for start in range(0, num_resamples, ROWS):
        yield random.multinomial(num_examples, even, min(ROWS, num_resamples - start))
