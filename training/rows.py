"""Rows of a batch, filled up until devices and micro-batches divide them."""

from typing import Any

import jax
import numpy as np


def pad_rows(batch: Any, multiple: int) -> Any:
    """Adds rows of zeros (weight 0) until the batch divides."""

    def padded(x: np.ndarray) -> np.ndarray:
        missing = -x.shape[0] % multiple
        return np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x

    return jax.tree.map(padded, batch)


def padded_shapes(batch: Any, multiple: int) -> Any:
    """The shapes that pad_rows gives; the batch may be of shapes itself."""

    def padded(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0] + -x.shape[0] % multiple, *x.shape[1:]), x.dtype)

    return jax.tree.map(padded, batch)
