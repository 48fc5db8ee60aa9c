"""What each head is like without removing any: importance by a gradient, entropy, confidence."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from analysis.heads import Heads, Path, ablated, queries_of, recorded_outputs

Array = jax.Array
Batches = Iterable[Mapping[str, np.ndarray]]


class Measures(NamedTuple):
    """Of each head (X,), over a split.

    Attributes:
        importance_token: sum over examples and places t from which the head looks of
            |dL / d mask_t|, over predicted tokens, L the summed loss: what the code of Michel
            et al. (2019) computes, |out_t . dL / d out_t|.
        importance_example: mean over examples of |dL / d mask| = |sum_t dL / d mask_t|, their
            equation 2.
        entropy: mean over places of -sum p ln p of the weights, in nats.
        confidence: mean over places of the largest weight (Voita et al. 2019, 4, leave out the
            end of the sentence as a place that is looked at; here it counts).
        means: mean output over places, ([N,] H, K), by path of the module.
    """

    importance_token: np.ndarray
    importance_example: np.ndarray
    entropy: np.ndarray
    confidence: np.ndarray
    means: dict[Path, np.ndarray]


def importance_sums(
    task: Any, model: Any, variables: Any, masks: Mapping[Path, Array], batch: dict
) -> tuple[dict[Path, Array], dict[Path, Array]]:
    """Sums over a batch, ([N,] H), of |.| by token and by example; one backward pass.

    The gradient is taken at `masks` (Heads.by_path), with a number for each place, so that it has
    all that both need.
    """
    shapes = recorded_outputs(model, variables, task.inputs(batch))
    everywhere = {
        path: jnp.broadcast_to(masks[path][..., None, None, :], shape.shape[:-1])
        for path, shape in shapes.items()
    }

    def loss(masks: dict[Path, Array]) -> Array:
        return task.token_losses(model, ablated(variables, masks, {}), batch)[0].sum()

    grads = jax.grad(loss)(everywhere)
    by_token = {path: jnp.abs(g).sum((-3, -2)) for path, g in grads.items()}
    by_example = {path: jnp.abs(g.sum(-2)).sum(-2) for path, g in grads.items()}
    return by_token, by_example


def look_sums(task: Any, model: Any, variables: Any, batch: dict) -> dict[Path, dict[str, Array]]:
    """Sums over the places of a batch from which a layer looks, by path of its module."""
    recorded = ["heads", "intermediates"]
    seen = model.apply(variables, *task.inputs(batch), mutable=recorded)[1]
    weights = {path[:-1]: x[0] for path, x in flatten_dict(seen["intermediates"]).items()}
    sums = {}
    for path, out in flatten_dict(seen["heads"]).items():
        queries_BT = queries_of(path, batch)
        maps = weights[path[:-1]].astype(jnp.float32)  # ([N,] B, H, T, S)
        share = maps / jnp.maximum(maps.sum(-1, keepdims=True), 1e-30)
        spread = jax.scipy.special.entr(share).sum(-1)
        sums[path[:-1]] = {
            "entropy": (spread * queries_BT[:, None]).sum((-3, -1)),
            "confidence": (maps.max(-1) * queries_BT[:, None]).sum((-3, -1)),
            "output": (out * queries_BT[:, :, None, None]).sum((-4, -3)),
            "places": queries_BT.sum(),
        }
    return sums


def measure(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    tick: Callable[[], None] = lambda: None,
) -> Measures:
    """One pass over batches, forward and backward; calls tick() after each."""

    @jax.jit
    def sums_of(variables: Any, batch: dict) -> tuple:
        gradients = importance_sums(task, model, variables, ones, batch)
        weights_BT = batch["weights"]
        counts = weights_BT.sum(), (weights_BT.sum(1) > 0).sum()
        return gradients, look_sums(task, model, variables, batch), counts

    total: Any = None
    ones = heads.by_path(jnp.ones(len(heads)))
    for batch in batches:
        new = jax.tree.map(lambda x: np.asarray(x, np.float64), sums_of(variables, dict(batch)))
        total = new if total is None else jax.tree.map(np.add, total, new)
        tick()
    (by_token, by_example), looks, (num_tokens, num_examples) = total

    def mean(name: str) -> dict[Path, np.ndarray]:
        return {path: found[name] / max(found["places"], 1) for path, found in looks.items()}

    return Measures(
        heads.in_order(by_token) / num_tokens,
        heads.in_order(by_example) / num_examples,
        heads.in_order(mean("entropy")),
        heads.in_order(mean("confidence")),
        {path: x.astype(np.float32) for path, x in mean("output").items()},
    )


def normalised(heads: Heads, values_X: np.ndarray) -> np.ndarray:
    """Divided by the L2 norm of the layer (Molchanov et al. 2017; Michel et al. 2019, 4.1)."""
    squares = np.bincount(heads.layer_of_X, np.square(values_X), len(heads.layers))
    return values_X / np.maximum(np.sqrt(squares), 1e-20)[heads.layer_of_X]
