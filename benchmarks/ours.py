"""Our side of a comparison: the train step of train.py, compiled as the training loop does."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

import models
import tasks
import train
from benchmarks.workloads import Workload
from tasks.losses import batch_nll, token_features, token_sums
from tasks.masked_language_modelling import masked_sums
from training import flops, parallel
from training.optimizer import build_optimizer
from training.state import TrainState, UpdateRule, create_state

OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "schedule": {"name": "constant"},
}
CLIP_NORM = 1.0
PMAP = {"strategy": "pmap", "num_devices": 0, "mesh": (0, 1, 1), "canonical_shards": 0}
MESH = {**PMAP, "strategy": "mesh"}


class FixedTask(tasks.Task):
    """The loss of the translation or language modelling task, without their data."""

    def __init__(self, workload: Workload) -> None:
        self.vocab_size = workload.vocab_size
        self.label_smoothing = workload.label_smoothing

    def inputs(self, batch: dict) -> tuple:
        """Of a language model the tokens alone: its rows are one text each."""
        return tuple(batch[name] for name in ("source", "inputs") if name in batch)

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        key = jax.random.key(0)  # nothing is random without training
        x_BTD, output, _ = token_features(model, variables, self.inputs(batch), key, train=False)
        return batch_nll(x_BTD, output, batch), None

    def loss(
        self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool
    ) -> dict[str, Any]:
        """As Translation.loss and LanguageModelling.loss."""
        smoothing = self.label_smoothing if train else 0.0
        return token_sums(model, variables, self.inputs(batch), batch, key, train, smoothing)


class FixedMaskedTask(tasks.Task):
    """The loss of BERT's two objectives, without their data."""

    def __init__(self, workload: Workload) -> None:
        self.vocab_size = workload.vocab_size

    def loss(
        self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool
    ) -> dict[str, Any]:
        """As MaskedLanguageModelling.loss."""
        return masked_sums(model, variables, batch, key, train, nsp=True)


def task_of(workload: Workload) -> tasks.Task:
    """The task whose loss belongs to a workload."""
    return FixedMaskedTask(workload) if workload.hidden else FixedTask(workload)


def program(
    model: Any,
    task: tasks.Task,
    where: Mapping[str, Any] = PMAP,
    diagnose_every: int = 0,
    accumulate: int = 1,
) -> tuple[parallel.Strategy, Callable[[], TrainState], Callable[..., Any]]:
    """(strategy, what makes the first state, train step for the strategy to compile)."""
    optimizer, schedule = build_optimizer(OPTIMIZER, num_steps=1000)
    rule = UpdateRule(optimizer, schedule, CLIP_NORM, 0.0, diagnose_every=diagnose_every)
    parts = {"model": model, "task": task, "rule": rule, "accumulate": accumulate}

    def init() -> TrainState:
        params = models.init_boxed(model, jax.random.key(0))["params"]
        return create_state(params, optimizer, ema=False)

    strategy = parallel.build_strategy(where, accumulate)
    return strategy, init, functools.partial(train.train_step, **parts)


class TrainStep:
    """Calling it makes one update and waits for it.

    Args:
        block: config.model.
        task: gives the loss and the vocabulary.
        next_batch: the batch of the next step.
        where: config.parallel, PMAP or MESH.
        diagnose_every: steps between measurements of each layer; 0 is off.
        accumulate: micro-batches.
    """

    def __init__(
        self,
        block: Mapping[str, Any],
        task: tasks.Task,
        next_batch: Callable[[], Mapping[str, Any]],
        where: Mapping[str, Any] = PMAP,
        diagnose_every: int = 0,
        accumulate: int = 1,
    ) -> None:
        self.model, self.task = models.build(block, task.vocab_size), task
        self._next_batch, self._key = next_batch, jax.random.key(1)
        self._strategy, init, step = program(self.model, task, where, diagnose_every, accumulate)
        self.state = self._strategy.init(init)
        self._step = self._strategy.train_step(step)
        self.record: dict[str, Any] = {}

    def __call__(self) -> None:
        batch = self._strategy.put(self._next_batch())
        self.state, self.record = self._step(self.state, batch, self._key)
        jax.block_until_ready(self.record)

    @property
    def num_parameters(self) -> int:
        """Trained numbers."""
        return models.num_parameters(self.state.params)

    def loss(self) -> float:
        """Mean loss of the last step, in nats per token."""
        total, weight = self.record["sums"]["loss"]
        return float(total) / float(weight)

    def model_flops(self) -> int:
        """FLOPs of the matrix products of one update, recomputation not counted."""

        def loss(params: Any, batch: dict) -> Any:
            key = jax.random.key(0)
            return self.task.loss(self.model, {"params": params}, batch, key, train=False)

        return flops.training_flops(loss, self.state.params, self._next_batch())


def train_step(
    workload: Workload, where: Mapping[str, Any] = PMAP, diagnose_every: int = 0
) -> TrainStep:
    """The step of a workload, on one batch again and again."""
    batch = workload.batch()
    return TrainStep(workload.model, task_of(workload), lambda: batch, where, diagnose_every)
