"""A run in progress: its state, its counters, its checkpoints and its rows of metrics."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from errors import NonFiniteError
from training import checkpoint_reader, distributed, final_params
from training.checkpoints import Checkpointer
from training.flops import training_flops
from training.goodput import Goodput
from training.layer_norms import layer_names
from training.meter import Meter, add_sums, means
from training.metrics import MetricsWriter
from training.parallel import Strategy
from training.profile import Profiler
from training.run_directory import RunDirectory
from training.signals import StopFlag
from training.state import TrainState
from training.watch import Warned, Watch


class Trainer:
    """What the loop of train.py calls; everything that it must not forget is saved.

    Args:
        settings: the checked config.
        task, model: what is learned, and by what (tasks.Task, a Linen module).
        strategy: where it runs.
        init: makes the first state, with named axes.
        step: train step of one device, for the strategy to compile.
        eval_sums: (params, batch) -> sums, likewise.
        run, stop: records of the run, and whether it was asked to stop.
    """

    def __init__(
        self,
        settings: dict,
        task: Any,
        model: Any,
        strategy: Strategy,
        init: Callable[[], TrainState],
        step: Callable,
        eval_sums: Callable,
        run: RunDirectory,
        stop: StopFlag,
    ) -> None:
        self.settings, self.task, self.model, self.strategy = settings, task, model, strategy
        self.run, self.stop = run, stop
        self._init, self.abstract = init, strategy.abstract(init)
        self._train_step = strategy.train_step(step)
        self._eval_step, self.eval_sums = strategy.eval_step(eval_sums), eval_sums
        self._key = jax.random.fold_in(jax.random.key(settings["seed"]), 1)
        self._flops: dict[tuple, int] = {}
        self._pending: tuple | None = None
        self._last_read = 0.0
        self._saved = -1
        self.state: Any = None  # a TrainState, from restore() on
        self.meter = Meter()
        self.best: dict[str, Any] = {"loss": float("inf"), "step": 0, "since": 0}
        self.evaluated = 0  # the last step that has a row of validation scores
        self.learning_rate = 0.0
        self._layers = layer_names(self.shapes)
        self.watch = Watch(self._layers, settings["diagnose_every"])
        self.goodput = Goodput()
        self.profiler = Profiler(settings["profile"], run.path / "profile")
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._warned: list[Warned] = []

    def restore(self, saver: Checkpointer) -> int:
        """Takes the newest good checkpoint, or a fresh state; returns its step."""
        with self.goodput.phase("restore"):
            step = self._restore(saver)
        return step

    def _restore(self, saver: Checkpointer) -> int:
        distributed.meet(self.strategy.mesh)
        found = saver.restore(self.abstract, must_match=self.task.fingerprint())
        self.goodput.resume(self.run.path, found[2].get("goodput") if found else None)
        if found is None:
            self.state = self.strategy.init(self._init)
            return 0
        step, self.state, meta = found
        self._saved = step
        self.meter, self.best = Meter(meta["meter"]), meta["best"]
        self.evaluated, self.learning_rate = meta["evaluated"], meta["learning_rate"]
        self.watch = Watch(self._layers, self.watch.every, meta.get("watch"))
        return step

    @property
    def shapes(self) -> Any:
        """The tree of the parameters, of which only shapes are known before restore()."""
        return self.abstract.params

    def replace_params(self, params: Any) -> None:
        """Other parameters, and moving averages that begin with them, on the same devices."""

        def put(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: distributed.place(x, y.sharding), new, old)

        old = self.state
        ema = None if old.ema_params is None else put(params, old.ema_params)
        self.state = old.replace(params=put(params, old.params), ema_params=ema)

    def save(self, saver: Checkpointer, metrics: MetricsWriter, step: int) -> None:
        """Saves the state after `step` batches, once."""
        self._write_rows(metrics)
        if self._saved == step:
            return
        self._saved = step
        with self.goodput.phase("save"):
            self._save(saver, metrics, step)

    def _save(self, saver: Checkpointer, metrics: MetricsWriter, step: int) -> None:
        metrics.sync()
        meta = {
            "goodput": self.goodput.state(),
            "meter": self.meter.state(),
            "best": self.best,
            "evaluated": self.evaluated,
            "learning_rate": self.learning_rate,
            "watch": self.watch.state(),
        }
        saver.save(step, self.state, meta, self.to_keep)

    def dispatch(self, step: int, batch: dict[str, np.ndarray]) -> None:
        """Starts the step, then reads what the step before it has found."""
        counts = self.task.count(batch) | {"flops": self._batch_flops(batch)}
        began = time.monotonic()
        with self.profiler.step(step + 1):
            self.state, record = self._train_step(self.state, self.strategy.put(batch), self._key)
        self.read_pending()
        self._pending = (step, record, counts, began)

    def lower(self, batch: dict[str, Any]) -> Any:
        """The train step for a batch of such shapes, a jax.stages.Lowered: nothing is run."""
        key = jax.eval_shape(lambda: self._key)
        return self._train_step.lower(self.abstract, self.strategy.shapes(batch), key)

    def _batch_flops(self, batch: dict[str, np.ndarray]) -> int:
        shapes = tuple(x.shape for x in batch.values())
        if shapes not in self._flops:
            self._flops[shapes] = training_flops(self.eval_sums, self.shapes, batch)
        return self._flops[shapes]

    def read_pending(self) -> None:
        """Waits for the step in flight and counts it.

        Raises:
            NonFiniteError: too many steps in a row were not finite.
        """
        if self._pending is None:
            return
        (step, record, counts, began), self._pending = self._pending, None
        record = jax.device_get(record)
        now = time.monotonic()
        self.meter.add(record, counts, now - max(began, self._last_read))
        self._last_read = now
        self.profiler.done(step + 1)
        scalars = record["scalars"]
        self.learning_rate = float(scalars["learning_rate"])
        if "layers" in record:
            self._diagnose(step + 1, record)
        if scalars["skipped"]:
            in_row = int(scalars["skipped_in_row"])
            self.run.journal("skip", step=step, in_row=in_row)
            if in_row >= self.settings["max_skipped_steps"]:
                raise NonFiniteError(
                    f"Loss or gradients were not finite in {in_row} steps in a row, the last of "
                    f"them step {step}; the parameters are those before. Lower "
                    "config.optimizer.learning_rate or set config.optimizer.clip_norm."
                )

    def _diagnose(self, step: int, record: dict) -> None:
        """Keeps the norms of the layers where they are due, and journals what is wrong."""
        if step % self.watch.every == 0:
            self._rows.append((step, self.watch.row(record)))
        for warned in self.watch.add(step, record):
            self.run.journal("warning", **warned._asdict())
            self._warned.append(warned)

    def _write_rows(self, metrics: MetricsWriter) -> None:
        """Waits for the step in flight; what it measured stands before all other rows of the
        step, so that a run that was stopped has its rows in the same order."""
        self.read_pending()
        for step, row in self._rows:
            metrics.write(step, "layers", row)
        self._rows.clear()

    def report(self, say: Callable[[str], None]) -> None:
        """Says what is wrong in the steps read so far."""
        for warned in self._warned:
            say(str(warned))
        self._warned.clear()

    def log(self, metrics: MetricsWriter, step: int) -> dict[str, float]:
        """Adds a row of training metrics and returns it."""
        self._write_rows(metrics)
        row = self.meter.row(self.learning_rate)
        metrics.write(step, "train", row)
        return row

    def evaluate(self, params: Any, split: str) -> dict[str, float]:
        """Means over a split, each example once, whatever the batches and devices."""
        totals: dict[str, tuple[float, float]] = {}
        pending: dict = {}
        carry = self.strategy.put(self.task.init_carry(self.model))
        for step in range(self.task.num_batches(split)):
            batch = self.strategy.put(self.task.batch(split, step))
            self.stop.check()  # here, where processes meet: who is behind still makes its batch
            batch = batch if carry is None else {**batch, "carry": carry}
            sums, carry = self._eval_step(params, batch)
            distributed.settle(sums)
            add_sums(totals, pending)
            pending = sums
        add_sums(totals, pending)
        return means(totals)

    def validate(self, metrics: MetricsWriter, step: int) -> dict[str, float]:
        """Adds a row of validation scores and remembers the best."""
        self._write_rows(metrics)
        with self.goodput.phase("evaluation"):
            scores = self.evaluate(self.current_params(), "validation")
            metrics.write(step, "validation", scores | self.meter.totals)
        metrics.write(step, "goodput", self.goodput.row())
        self.evaluated, self._saved = step, -1  # a checkpoint of this step lacks what follows
        if scores["loss"] < self.best["loss"]:
            self.best = {"loss": scores["loss"], "step": step, "since": 0}
        else:
            self.best["since"] += 1
        return scores

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has not improved for early_stopping_patience evaluations."""
        patience = self.settings["early_stopping_patience"]
        return patience > 0 and self.best["since"] >= patience

    @property
    def to_keep(self) -> int | None:
        """The step of the best checkpoint, where the final scores are to come from it."""
        return self.best["step"] if self.settings["early_stopping_patience"] else None

    def current_params(self) -> Any:
        """The moving average if there is one, else the parameters."""
        ema = self.state.ema_params
        return self.state.params if ema is None else ema

    def final_params(self) -> Any:
        """For the final scores: the mean of the last checkpoints, the best one, or the last."""
        folder, settings = self.run.checkpoints, self.settings
        distributed.together("saved")

        def chosen() -> list[int]:
            good = checkpoint_reader.good_steps(folder)
            return final_params.chosen_steps(settings, good, self.best["step"])

        steps = distributed.agreed("final", chosen)  # their views of a network disk may differ
        if not steps:
            return self.current_params()
        mean = final_params.mean_of(folder, steps, final_params.kind(settings))
        return jax.tree.map(
            lambda x, old: distributed.place(x, old.sharding), mean, self.state.params
        )
