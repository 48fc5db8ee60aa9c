"""Gates of heads that are learned: hard concrete (L0) and Gumbel top-k.

A gate is a mask of heads that is drawn anew in each step, so that the model needs nothing of its
own for it. The model stays as it is. Axes: X heads.
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
) -> np.ndarray:
    """Logits of the gates (X,) after one step of Adam for each batch.

    Args:
        gates: (key, logits_X, setting) -> mask_X.
        penalty: (logits_X, setting) -> what is added to the loss in nats per token.
        start: all logits at first.
    """
    optimizer = optax.adam(learning_rate)

    def loss(logits_X: Array, key: Array, batch: dict, setting: Any) -> Array:
        masked = heads.masked(variables, gates(key, logits_X, setting))
        nats = task.token_losses(model, masked, batch)[0].sum() / batch["weights"].sum()
        return nats + penalty(logits_X, setting)

    @jax.jit
    def step(logits_X: Array, state: Any, key: Array, batch: dict, setting: Any) -> tuple:
        updates, state = optimizer.update(jax.grad(loss)(logits_X, key, batch, setting), state)
        return optax.apply_updates(logits_X, updates), state

    logits_X = jnp.full(len(heads), start)
    state = optimizer.init(logits_X)
    for i, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(seed), i)
        logits_X, state = step(logits_X, state, key, dict(batch), setting)
    return np.asarray(logits_X)


def learn_l0(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    penalty: float,
    **options: Any,
) -> np.ndarray:
    """Mask (X,) of the heads whose gates stay open for `penalty` nats per token and open head.

    From a converged model, as in Voita et al. (2019); a gate is open if it is above 0 without
    noise.
    """
    log_alpha_X = learn(
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
    return np.asarray(stretched(jnp.asarray(log_alpha_X)) > 0, np.float32)


def learn_top_k(
    task: Any,
    model: Any,
    variables: Any,
    heads: Heads,
    batches: Batches,
    count: int,
    temperature: float = 0.5,
    **options: Any,
) -> np.ndarray:
    """Logits (X,) by which `count` heads are best kept; the highest are the choice."""
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
