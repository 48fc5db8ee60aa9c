"""Gradients of a sum over the global batch: over micro-batches, devices and shards.

Sums, never means, until the last division: a step then depends neither on the number
of devices or micro-batches nor on where the padding fell.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from trees import constrain, spread

Array = jax.Array
# loss_sums(params, batch, key) -> {name: (sum, weight)}, "loss" being what is minimised, and
# perhaps "carry": arrays with a leading axis of rows, which are not added up but put together.
LossSums = Callable[[Any, dict, Array], dict]


def _one(loss_sums: LossSums, params: Any, batch: dict, key: Array) -> tuple[tuple, Any]:
    """((gradients, sums), carry)."""

    def minimised(params: Any) -> tuple[Array, tuple]:
        sums = dict(loss_sums(params, batch, key))
        carry = sums.pop("carry", None)
        return sums["loss"][0], (sums, carry)

    grads, (sums, carry) = jax.grad(minimised, has_aux=True)(params)
    return (grads, sums), carry


def _split(batch: dict, pieces: int) -> dict:
    """Cuts the batch axis into (pieces, rows); on a mesh each piece has rows of all devices."""

    def cut(x: Array) -> Array:
        if not spread():
            return x.reshape(pieces, x.shape[0] // pieces, *x.shape[1:])
        x = x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "batch")

    return jax.tree.map(cut, batch)


def _join(pieces: Any) -> Any:
    """The reverse of _split."""

    def whole(x: Array) -> Array:
        return (x.swapaxes(0, 1) if spread() else x).reshape(-1, *x.shape[2:])

    return jax.tree.map(whole, pieces)


def summed_gradients(
    loss_sums: LossSums,
    params: Any,
    batch: dict,
    key: Array,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> tuple[Any, dict, Any]:
    """Gradients and sums of the global batch, and the carry of this device's rows.

    Args:
        batch: this device's rows under pmap; the whole batch otherwise.
        accumulate: micro-batches, one after another, in the memory of one.
        axis_name: the axis of pmap, or None.
    """
    if axis_name:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if accumulate == 1:
        total, carry = _one(loss_sums, params, batch, key)
    else:

        def body(total: Any, at: tuple) -> tuple[Any, Any]:
            piece, i = at
            new, carry = _one(loss_sums, params, piece, jax.random.fold_in(key, i))
            return jax.tree.map(jnp.add, total, new), carry

        pieces = _split(batch, accumulate)
        first = jax.eval_shape(
            lambda: _one(loss_sums, params, jax.tree.map(lambda x: x[0], pieces), key)[0]
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
        total, carries = jax.lax.scan(body, zeros, (pieces, jnp.arange(accumulate)))
        carry = _join(carries)
    if axis_name and jax.lax.axis_size(axis_name) > 1:  # alone, XLA would copy all gradients
        total = jax.lax.psum(total, axis_name)
    return (*total, carry)


def canonical_gradients(
    loss_sums: LossSums, params: Any, batch: dict, key: Array, shards: int, axis_name: str
) -> tuple[Any, dict, Any]:
    """The same, bit for bit equal on every number of devices that divides `shards`.

    The global batch is `shards` pieces with a random key each. A device computes its
    pieces one at a time with one program, and every device adds all pieces up in the
    order of their numbers.
    """
    devices = jax.lax.axis_size(axis_name)
    local = shards // devices

    def piece_gradients(i: Array) -> Any:
        piece = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), cut)
        number = jax.lax.axis_index(axis_name) * local + i
        piece, number = jax.lax.optimization_barrier((piece, number))
        one = _one(loss_sums, params, piece, jax.random.fold_in(key, number))
        return jax.lax.optimization_barrier(one)

    def body(i: Array, found: Any) -> Any:
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), found, piece_gradients(i))

    cut = _split(batch, local)
    shapes = jax.eval_shape(piece_gradients, jnp.int32(0))
    zeros = jax.tree.map(lambda one: jnp.zeros((local, *one.shape), one.dtype), shapes)
    # The compiler must not see how often the loop runs: it would unroll a loop of one piece,
    # fuse it with what surrounds it, and round otherwise.
    count = jax.lax.optimization_barrier(jnp.int32(local))
    pieces, carries = jax.lax.fori_loop(0, count, body, zeros)
    everywhere = jax.lax.all_gather(pieces, axis_name, tiled=True)

    def ordered_sum(leaf: Array) -> Array:
        return jax.lax.scan(lambda total, x: (total + x, None), jnp.zeros_like(leaf[0]), leaf)[0]

    return (*jax.tree.map(ordered_sum, everywhere), _join(carries))
