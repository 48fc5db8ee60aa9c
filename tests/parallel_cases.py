"""A few training steps of a tiny model on any devices, compiled once for each."""

import functools

import jax
import numpy as np
from model_cases import SEQ2SEQ, VOCAB, sources, tokens

import models
from tasks.losses import token_sums
from train import train_step
from training import parallel
from training.offload import streamed
from training.optimizer import build_optimizer
from training.state import UpdateRule, create_state

ROWS = 16
OPTIMIZERS: dict[str, dict] = {
    "sgd": {"name": "sgd"},
    "momentum": {"name": "sgd", "momentum": 0.9},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "adafactor": {"name": "adafactor", "min_dim_size_to_factor": 2},
}


class TinyTranslation:
    """Random pairs of unequal lengths; what train_step needs of a task."""

    def batch(self, step: int) -> dict:
        inputs_BT = tokens(ROWS, 7, seed=step)
        lengths_B = np.random.default_rng(step).integers(1, 8, ROWS)
        weights_BT = (np.arange(7) < lengths_B[:, None]).astype(np.float32)
        targets_BT = tokens(ROWS, 7, seed=step + 99)
        source_BS = np.concatenate([sources(ROWS // 2), sources(ROWS // 2)])
        parts = {"source": source_BS, "inputs": inputs_BT, "targets": targets_BT}
        return {**parts, "weights": weights_BT}

    def loss(self, model, variables, batch, key, train):
        inputs = (batch["source"], batch["inputs"])
        return token_sums(model, variables, inputs, batch, key, train, 0.1)


def parts(name, dropout_rate=0.0, accumulate=1, options=(), optimizer="sgd") -> tuple:
    """(strategy, what makes the first state, train step, sums of an evaluation)"""
    block = {"strategy": "pmap", "num_devices": 1, "mesh": (0, 1, 1), "canonical_shards": 0}
    block |= dict(options)
    block["rules"] = dict(block.get("rules", ()))
    model = models.build({**SEQ2SEQ[name], "dropout_rate": dropout_rate}, VOCAB)
    rates = {"learning_rate": 0.1, "schedule": {"name": "constant"}}
    optimizer, schedule = build_optimizer({**OPTIMIZERS[optimizer], **rates}, 3)
    if block.get("offload"):
        optimizer = streamed(optimizer)
    task, strategy = TinyTranslation(), parallel.build_strategy(block, accumulate)

    def init():
        boxed = models.init_boxed(model, jax.random.key(0))["params"]
        return create_state(boxed, optimizer, ema=True)

    step = functools.partial(
        train_step,
        model=model,
        task=task,
        rule=UpdateRule(optimizer, schedule, clip_norm=1.0, ema_decay=0.5),
        accumulate=accumulate,
        shards=block["canonical_shards"],
    )

    def eval_sums(params, batch):
        return task.loss(model, {"params": params}, batch, None, False)

    return strategy, init, step, eval_sums


@functools.cache
def programs(name, dropout_rate, accumulate, options, optimizer="sgd") -> tuple:
    """(strategy, first state, its shardings, train step, evaluation), each compiled once."""
    strategy, init, step, eval_sums = parts(name, dropout_rate, accumulate, options, optimizer)
    first = strategy.init(init)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, first)
    compiled = strategy.train_step(step), strategy.eval_step(eval_sums)
    return strategy, jax.device_get(first), shardings, *compiled


def run(
    name,
    *,
    dropout_rate=0.0,
    steps=3,
    batches=None,
    accumulate=1,
    begin=None,
    optimizer="sgd",
    **options,
) -> dict:
    """A few steps from the first state, or from the state that `begin` gives for shardings;
    returns parameters, loss and gradient norm on the host."""
    found = programs(name, dropout_rate, accumulate, tuple(options.items()), optimizer)
    strategy, first, shardings, train_on, evaluate = found
    # A copy: training gives the buffers of the state away.
    state = begin(shardings) if begin else jax.device_put(first, shardings, may_alias=False)
    batch_of, records = TinyTranslation().batch, []
    for i in range(int(state.step), int(state.step) + steps):
        batch = strategy.put((batches or batch_of)(i))
        state, record = train_on(state, batch, jax.random.key(1))
        records.append(jax.device_get(record))
    evaluated = evaluate(state.params, strategy.put(batch_of(50)))
    return jax.device_get({"state": state, "records": records, "evaluated": evaluated})


@functools.cache
def alone(name: str) -> dict:
    return run(name)


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        scale = max(1e-3, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=tolerance * scale, rtol=tolerance)
