"""A scan over time whose weight gradients are one product each.

Automatic differentiation of `lax.scan` adds up dL/dW = sum_t h_t^T dz_t step by step:
T small products, each of which reads and writes all of W. Here the backward scan only
computes dz_t and keeps it; the sum is one large product after the scan. The products
of the forward pass are kept too, so that the backward pass recomputes activations
but no product.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from trees import spread

Array = jax.Array
Tree = Any
# step(linear, shared, carry, x) -> (carry, y); linear(name, h) is h @ weights[name].
Step = Callable[[Callable[[str, Array], Array], Tree, Tree, Tree], tuple[Tree, Tree]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def hoisted_scan(
    step: Step, reverse: bool, weights: dict[str, Array], shared: Tree, carry: Tree, xs: Tree
) -> tuple[Tree, Tree]:
    """`lax.scan` of a step whose products with weights go through `linear`.

    Args:
        step: a pure function that closes over no arrays. It may call `linear` once for
            each name, with h of shape (B, I) and a weight of shape (I, O).
        reverse: from the last time step to the first.
        weights: matrices, by name.
        shared: arrays that every step reads: encoder states, vectors, norm scales. Their
            gradients are summed step by step, in the backward carry.
        carry: the state before the first step.
        xs: inputs with time as the leading axis; floating point, masks included.

    Returns:
        (carry after the last step, ys stacked over time).
    """

    def body(carry: Tree, x: Tree) -> tuple[Tree, Tree]:
        return step(lambda name, h: h @ weights[name], shared, carry, x)

    return jax.lax.scan(body, carry, xs, reverse=reverse)


def _scan(body: Callable, carry: Tree, xs: Tree, reverse: bool) -> tuple[Tree, Tree]:
    """`lax.scan` that stacks an array once, however often a step returns it.

    The state is also what a product reads, and the gradient of hoisted gates is that of
    the product that they are added to.
    """
    tree, places = None, []

    def once(carry: Tree, x: Tree) -> tuple[Tree, list[Array]]:
        nonlocal tree, places
        carry, y = body(carry, x)
        leaves, tree = jax.tree.flatten(y)
        distinct = {id(leaf): leaf for leaf in leaves}
        places = [list(distinct).index(id(leaf)) for leaf in leaves]
        return carry, list(distinct.values())

    carry, stacked = jax.lax.scan(once, carry, xs, reverse=reverse)
    return carry, jax.tree.unflatten(tree, [stacked[place] for place in places])


def _forward(
    step: Step, reverse: bool, weights: dict[str, Array], shared: Tree, carry: Tree, xs: Tree
) -> tuple[tuple[Tree, Tree], Tree]:
    def body(carry: Tree, x: Tree) -> tuple[Tree, Tree]:
        inputs, products = {}, {}

        def linear(name: str, h: Array) -> Array:
            inputs[name], products[name] = h, h @ weights[name]
            return products[name]

        new_carry, y = step(linear, shared, carry, x)
        return new_carry, (y, carry, inputs, products)

    carry, (ys, carries, inputs, products) = _scan(body, carry, xs, reverse)
    return (carry, ys), (weights, shared, xs, carries, inputs, products)


@jax.custom_vjp
def _replay(product: Array, h: Array, weight: Array) -> Array:
    """The kept product, with the gradients of h @ weight except for the weight's own."""
    return product


def _replay_forward(product: Array, h: Array, weight: Array) -> tuple[Array, Array]:
    return product, weight


def _replay_backward(weight: Array, dz: Array) -> tuple[Array, Array, None]:
    return dz, dz @ weight.T, None


_replay.defvjp(_replay_forward, _replay_backward)


def _backward(step: Step, reverse: bool, kept: Tree, grads: tuple[Tree, Tree]) -> tuple:
    weights, shared, xs, carries, inputs, products = kept
    dcarry, dys = grads

    def body(running: tuple[Tree, Tree], at: tuple) -> tuple[tuple[Tree, Tree], Tree]:
        dcarry, dshared = running
        dy, x, carry, products = at

        def replayed(shared: Tree, carry: Tree, x: Tree, products: dict[str, Array]) -> Tree:
            def linear(name: str, h: Array) -> Array:
                return _replay(products[name], h, weights[name])

            return step(linear, shared, carry, x)

        _, pull = jax.vjp(replayed, shared, carry, x, products)
        more, dcarry, dx, dz = pull((dcarry, dy))
        return (dcarry, jax.tree.map(jnp.add, dshared, more)), (dx, dz)

    zeros = jax.tree.map(jnp.zeros_like, shared)
    (dcarry, dshared), (dxs, dzs) = _scan(
        body, (dcarry, zeros), (dys, xs, carries, products), not reverse
    )

    def weight_gradient(h_TBI: Array, dz_TBO: Array) -> Array:
        if spread():
            return jnp.tensordot(h_TBI, dz_TBO, ((0, 1), (0, 1)))
        return h_TBI.reshape(-1, h_TBI.shape[-1]).T @ dz_TBO.reshape(-1, dz_TBO.shape[-1])

    dweights = {name: weight_gradient(inputs[name], dzs[name]) for name in weights}
    return dweights, dshared, dcarry, dxs


hoisted_scan.defvjp(_forward, _backward)
