"""Gates of heads that are learned: hard concrete (L0) and Gumbel top-k.

A gate is a mask of heads that is drawn anew in each step, so that the model needs nothing of its
own for it. The model stays as it is, or learns with its gates. Axes: X heads.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from analysis.head_measures import Batches
from analysis.heads import Heads

Array = jax.Array

TEMPERATURE, LOW, HIGH = 0.33, -0.1, 1.1  # Voita et al. 2019; Louizos et al. 2018
TINY = 1e-6


def hard_concrete(key: Array, log_alpha_X: Array) -> Array:
    """Draws gates in [0, 1], exactly 0 and 1 among them (Louizos et al. 2018, eq. 11).

    s = sigmoid((ln u - ln(1 - u) + log_alpha) / TEMPERATURE), stretched to [LOW, HIGH], clipped
    """
    u_X = jax.random.uniform(key, log_alpha_X.shape, minval=TINY, maxval=1 - TINY)
    noise_X = jnp.log(u_X) - jnp.log1p(-u_X)
    return stretched((noise_X + log_alpha_X) / TEMPERATURE)


def stretched(x: Array) -> Array:
    """sigmoid(x) on [LOW, HIGH], clipped to [0, 1]."""
    return jnp.clip(jax.nn.sigmoid(x) * (HIGH - LOW) + LOW, 0, 1)


def chance_open(log_alpha_X: Array) -> Array:
    """P(gate > 0), whose sum is the L0 penalty (Louizos et al. 2018, eq. 12)."""
    return jax.nn.sigmoid(log_alpha_X - TEMPERATURE * np.log(-LOW / HIGH))


def top_k(key: Array, logits_X: Array, count: Any, temperature: float) -> Array:
    """A sample of exactly `count` heads: 1 for them and 0 for the others (Li et al. 2021).

    The `count` largest of logits + Gumbel noise, which is a sample without replacement; its
    gradient is that of the relaxation of Xie & Ermon (2019): softmax `count` times, each time
    less what was taken.
    """
    noisy_X = logits_X + jax.random.gumbel(key, logits_X.shape)
    num_heads = len(logits_X)
    rank_X = jnp.argsort(jnp.argsort(-noisy_X))
    hard_X = (rank_X < count).astype(jnp.float32)

    def take(left_X: Array, i: Array) -> tuple[Array, Array]:
        share_X = jax.nn.softmax(left_X / temperature)
        taken_X = share_X * (i < count)
        return left_X + jnp.log(jnp.maximum(1 - share_X, TINY)), taken_X

    _, taken = jax.lax.scan(take, noisy_X, jnp.arange(num_heads))
    soft_X = taken.sum(0)
    return jax.lax.stop_gradient(hard_X - soft_X) + soft_X


def learn(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    gates: Callable[[Array, Array, Any], Array],
    penalty: Callable[[Array, Any], Array],
    setting: float,
    start: float = 0.0,
    learning_rate: float = 0.1,
    seed: int = 0,
    tune: optax.GradientTransformation | None = None,
) -> tuple[np.ndarray, Any]:
    """One step for each batch: of Adam for the gates, of `tune` for the parameters.

    Args:
        gates: (key, logits_X, setting) -> mask_X.
        penalty: (logits_X, setting) -> what is added to the loss in nats per token.
        start: all logits at first.
        tune: the optimizer with which the parameters learn too, from the loss of training
            (dropout, label smoothing); None: they stay as they are.

    Returns:
        (logits of the gates (X,), variables of the model).
    """
    learned = {"gates": jnp.full(len(heads), start)}
    optimizers = {"gates": optax.adam(learning_rate)}
    if tune is not None:
        learned["params"], optimizers["params"] = variables["params"], tune
    optimizer = optax.multi_transform(optimizers, {name: name for name in learned})

    def loss(learned: dict, variables: Any, key: Array, batch: dict, setting: Any) -> Array:
        params = {name: learned[name] for name in ("params",) if name in learned}
        mask_X = gates(key, learned["gates"], setting)
        masked = heads.masked({**variables, **params}, mask_X)
        noise = jax.random.fold_in(key, 1)
        total, weight = task.loss(model, masked, batch, noise, train=tune is not None)["loss"]
        return total / weight + penalty(learned["gates"], setting)

    @jax.jit
    def step(learned: dict, state: Any, variables: Any, *of_batch: Any) -> tuple:
        gradients = jax.grad(loss)(learned, variables, *of_batch)
        updates, state = optimizer.update(gradients, state, learned)
        return optax.apply_updates(learned, updates), state

    state = optimizer.init(learned)
    for i, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(seed), i)
        learned, state = step(learned, state, variables, key, dict(batch), setting)
    return np.asarray(learned["gates"]), {"params": learned.get("params", variables["params"])}


def learn_l0(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    penalty: float,
    **options: Any,
) -> tuple[np.ndarray, Any]:
    """Mask (X,) of the heads whose gates stay open for `penalty` nats per token and open head,
    and the variables of the model.

    From a converged model, which Voita et al. (2019) train on together with its gates (`tune`);
    a gate is open if it is above 0 without noise.
    """
    log_alpha_X, variables = learn(
        task,
        model,
        variables,
        heads,
        batches,
        gates=lambda key, log_alpha_X, _: hard_concrete(key, log_alpha_X),
        penalty=lambda log_alpha_X, weight: weight * chance_open(log_alpha_X).sum(),
        setting=penalty,
        start=2.0,
        **options,
    )
    return np.asarray(stretched(jnp.asarray(log_alpha_X)) > 0, np.float32), variables


def learn_top_k(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    count: int,
    temperature: float = 0.5,
    **options: Any,
) -> tuple[np.ndarray, Any]:
    """Logits (X,) by which `count` heads are best kept, the highest of which are the choice, and
    the variables of the model."""
    return learn(
        task,
        model,
        variables,
        heads,
        batches,
        gates=lambda key, logits_X, count: top_k(key, logits_X, count, temperature),
        penalty=lambda logits_X, _: jnp.zeros(()),
        setting=count,
        **options,
    )
