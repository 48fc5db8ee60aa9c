"""The batches of an epoch, where examples of a shape go together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The batches of an epoch, in their order.

    Attributes:
        rows: examples, batch after batch.
        edges: batch i has rows[edges[i, 0] : edges[i, 1]], (batches, 2).
        buckets: the number of each batch's shape, (batches,).
    """

    rows: np.ndarray
    edges: np.ndarray
    buckets: np.ndarray


def plan_batches(
    order: np.ndarray,
    buckets: np.ndarray,
    num_rows: Sequence[int],
    order_batches: Callable[[int], np.ndarray],
) -> Plan:
    """Divides examples into batches of one shape each.

    Args:
        order: the examples of the epoch.
        buckets: the number of each example's shape.
        num_rows: of a batch of each shape, at most.
        order_batches: an order of so many batches.
    """
    rows, edges, chosen, at = [], [], [], 0
    for bucket, size in enumerate(num_rows):
        members = order[buckets[order] == bucket]
        num_batches = -(-len(members) // size)
        # Evenly: a batch of one row would move the parameters as far as a full one.
        cuts = at + np.arange(num_batches + 1) * len(members) // max(num_batches, 1)
        rows.append(members)
        edges.append(np.stack([cuts[:-1], cuts[1:]], axis=1))
        chosen.append(np.full(num_batches, bucket))
        at += len(members)
    batch_order = order_batches(sum(map(len, edges)))
    return Plan(
        np.concatenate(rows),
        np.concatenate(edges)[batch_order],
        np.concatenate(chosen)[batch_order],
    )
