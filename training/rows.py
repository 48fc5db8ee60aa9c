"""Rows of a batch, filled up until devices and micro-batches divide them."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from errors import ConfigError


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


def by_rows(carry: Any, multiple: int, field: str) -> Any:
    """A task's carry, its leading axis named so that it is spread as the rows of a batch.

    Raises:
        ConfigError: the rows, which the field sets, don't divide; filled up, they would be
            others on other devices.
    """

    def named(x: Any) -> nn.LogicallyPartitioned:
        if x.shape[0] % multiple:
            raise ConfigError(
                f"{field} ({x.shape[0]}) must be a multiple of {multiple}, devices times "
                "micro-batches, where a state is kept for each row."
            )
        return nn.LogicallyPartitioned(x, ("batch", *[None] * (x.ndim - 1)))

    return jax.tree.map(named, carry)
