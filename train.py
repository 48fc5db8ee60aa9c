"""Trains any model on any task: the one loop.

  python train.py --config=configs/translation.py:model=lstm-attention-small --workdir=runs/lstm
  python train.py --config=... --workdir=... --config.optimizer.learning_rate=3e-4

The same command again resumes the run, exactly; a finished run says so. Exit codes: 0 done,
64 bad config or arguments, 65 bad data, 70 non-finite, 74 disk, 75 preempted, or without the
other processes (run it again).
Many processes: the same command in each, with --coordinator; see docs/scaling.md.
"""

import argparse
import functools
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import models
import tasks
from errors import Parser, Preempted, SeqlabError
from models import join
from trained import begin_with, cache_of, changes_since_start, check_tokenizers, load_parts
from training import compilation, config_files, cores, gradients, parallel, profile, report, schema
from training.checkpoint_reader import good_steps
from training.checkpoints import Checkpointer
from training.connecting import add_process_arguments, connected, leave
from training.distributed import check_same, is_first, number, only_first, stop_flag
from training.freezing import freeze
from training.goodput import Goodput, process_start
from training.layer_decay import decay_layers
from training.memory import keep_freed_memory
from training.metrics import MetricsWriter
from training.offload import streamed
from training.optimizer import build_clip, build_optimizer
from training.progress import ProgressBar
from training.rows import by_rows
from training.run_directory import RunDirectory
from training.signals import StopFlag
from training.state import TrainState, UpdateRule, create_state
from training.trainer import Trainer
from training.witness import console, metrics_writer, run_directory


def train_step(
    state: TrainState,
    batch: dict,
    key: jax.Array,
    *,
    model: Any,
    task: tasks.Task,
    rule: UpdateRule,
    accumulate: int = 1,
    shards: int = 0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict]:
    """One update. Under pmap, batch is this device's share; under a mesh, all of it."""
    key = jax.random.fold_in(key, state.step)

    if state.carry is not None:
        batch = {**batch, "carry": state.carry}

    def loss_sums(params: Any, batch: dict, key: jax.Array) -> dict:
        return task.loss(model, {"params": params}, batch, key, train=True)

    if shards and axis_name:
        found = gradients.canonical_gradients(
            loss_sums, state.params, batch, key, shards, axis_name
        )
    else:
        found = gradients.summed_gradients(
            loss_sums, state.params, batch, key, accumulate, axis_name
        )
    state, record = rule(state, *found)
    return state, {"sums": found[1], **record}


def build_trainer(settings: dict, task: tasks.Task, run: RunDirectory, stop: StopFlag) -> Trainer:
    """Model, optimizer and devices of a config, ready to run; nothing is compiled yet."""
    model = models.build(settings["model"], task.vocab_size)
    optimizer, schedule = build_optimizer(settings["optimizer"], settings["num_steps"])
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    optimizer = freeze(optimizer, shapes, settings["freeze"])
    optimizer = decay_layers(optimizer, shapes, settings["optimizer"]["layer_decay"])
    if settings["parallel"]["offload"] == "moments":
        optimizer = streamed(optimizer)
    accumulate, ema = settings["accumulate"], settings["ema_decay"]
    shards = settings["parallel"]["canonical_shards"]
    clip_norm, clip = settings["optimizer"]["clip_norm"], build_clip(settings["optimizer"])
    rule = UpdateRule(optimizer, schedule, clip_norm, ema, clip, settings["diagnose_every"])

    def init() -> TrainState:
        key = jax.random.fold_in(jax.random.key(settings["seed"]), 0)
        params, carry = models.init_boxed(model, key)["params"], task.init_carry(model)
        carry = by_rows(carry, strategy.multiple, "config.task.sequences_per_batch")
        return create_state(params, optimizer, ema > 0, carry)

    def eval_sums(params: Any, batch: dict) -> dict:
        unused = jax.random.key(0)  # nothing is random without training
        return task.loss(model, {"params": params}, batch, unused, train=False)

    parts = {"model": model, "task": task, "rule": rule}
    step = functools.partial(train_step, **parts, accumulate=accumulate, shards=shards)
    strategy = parallel.build_strategy(settings["parallel"], accumulate)
    return Trainer(settings, task, model, strategy, init, step, eval_sums, run, stop)


def fit(trainer: Trainer, saver: Checkpointer, metrics: MetricsWriter, start: int) -> int:
    """The loop: from batch `start` to the last one; returns the step at which it ended."""
    settings, step = trainer.settings, start
    num_steps = settings["num_steps"]
    if trainer.out_of_patience:
        return start
    batches = trainer.task.stream("train", start, num_steps)
    try:
        with ProgressBar(num_steps, start, stream=console()) as bar:
            due = start == num_steps or start % settings["eval_every"] == 0
            if due and trainer.evaluated < start:
                trainer.validate(metrics, start)  # a stop came in the middle of it
            for i, batch in trainer.goodput.waiting(batches):
                if trainer.out_of_patience:
                    trainer.run.journal("early_stop", step=step, best=trainer.best["step"])
                    break
                trainer.stop.check()
                trainer.dispatch(i, batch)
                step, last = i + 1, i + 1 == num_steps
                if last or step % settings["log_every"] == 0:
                    row = trainer.log(metrics, step)
                    bar.update(step, tokens_per_second=row["tokens_per_second"], loss=row["loss"])
                if last or step % settings["eval_every"] == 0:
                    scores = trainer.validate(metrics, step)
                    name = "perplexity" if "perplexity" in scores else "loss"
                    bar.message(f"step {step}: validation {name} {scores[name]:.4g}")
                trainer.report(bar.message)
                if last or step % settings["save_every"] == 0 or trainer.to_keep == step:
                    trainer.save(saver, metrics, step)
    except Preempted:
        trainer.save(saver, metrics, step)
        raise
    finally:
        batches.close()
        trainer.profiler.stop()
    trainer.save(saver, metrics, step)
    return step


def finish(trainer: Trainer, metrics: MetricsWriter, step: int) -> dict[str, Any]:
    """Final scores, samples and the picture; writes them into the run directory."""
    trainer.goodput.enter("evaluation")
    split, task = trainer.settings["final_split"], trainer.task
    params = trainer.final_params()
    scores = trainer.evaluate(params, split)
    variables, found = {"params": only_first(params)}, tasks.Evaluation()
    if is_first():  # alone: the others wait for it before they leave
        found = task.evaluate(trainer.model, variables, split, trainer.stop.poll)
    scores |= found.scores
    metrics.write(step, split, scores | trainer.meter.totals)
    for sample in found.samples:
        metrics.text(step, "samples", "  \n".join(f"{k}: {v}" for k, v in sample.items()))
    metrics.sync()
    if is_first():
        report.draw_curve(trainer.run.path)
    metrics.write(step, "goodput", trainer.goodput.row())
    return {
        "step": step,
        "num_steps": trainer.settings["num_steps"],
        "split": split,
        "scores": scores,
        "notes": dict(found.notes),
        "samples": list(found.samples),
        "num_parameters": models.num_parameters(trainer.state.params),
        "totals": trainer.meter.totals,
        "goodput": trainer.goodput.state(),
    }


def train(settings: dict, workdir: str | Path, began: float | None = None) -> dict[str, Any]:
    """Runs a checked config in a run directory, from where it stopped; returns the result.

    Args:
        began: when the work for it began, on time.monotonic; now.

    Raises:
        SeqlabError: with a sentence and an exit code; whatever was saved stays.
    """
    run = run_directory(workdir)
    run.check()
    if run.exists:  # another trainer in it is named before any data is read
        run.lock()
    with run:
        changes = changes_since_start(settings, run)
        profile.check_range(settings, run)
        if run.is_finished(settings["num_steps"]):
            return run.result() or {}
        cache = cache_of(settings)
        with stop_flag() as stop, Goodput(began) as goodput:
            begun = good_steps(run.checkpoints)  # or else with the models that init_from names
            parts, digests = load_parts(settings, run, begun)
            compilation.keep_compiled(cache)  # now, because load_parts chooses that of its runs
            task = tasks.build(settings["task"], settings["seed"], cache)
            check_tokenizers(parts, task.tokenizer)
            # Reads all splits, before anything is written.
            fingerprint = task.fingerprint() | digests
            stop.check()
            trainer = build_trainer(settings, task, run, stop)
            params = {part: found.variables["params"] for part, found in parts.items()}
            join.match(trainer.shapes, params, settings["init_from"]["allow"])
            if not run.exists:
                run.lock()
            trainer.goodput = goodput
            return _run(trainer, run, changes, fingerprint, params)


def check(config: Mapping) -> dict:
    """The config as plain settings with every default filled in, or a ConfigError."""
    return schema.validate(config, models=models.MODELS, tasks=tasks.TASKS)


def _run(
    trainer: Trainer,
    run: RunDirectory,
    changes: list,
    fingerprint: dict[str, str],
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    """Journals the start and the end around the loop."""
    settings, code = trainer.settings, 1
    begun = not run.exists
    if begun:  # first of all: a folder with other files and no journal is taken for no run
        run.journal("start", argv=sys.argv)
    keep = settings["keep_checkpoints"]
    try:
        with Checkpointer(run.checkpoints, keep, fingerprint, run.journal) as saver:
            start = trainer.restore(saver)  # refuses other data while nothing is written
            if parts and not start:
                begin_with(trainer, run, parts)
            if not begun:
                run.journal("resume", argv=sys.argv)
            begun = True
            for change in changes:
                run.journal("config_change", field=change.path, old=change.old, new=change.new)
            run.write_config(schema.to_json(settings))
            run.write_environment()
            if is_first():
                trainer.task.save(run.path)
            run.journal("restore", step=start)
            with metrics_writer(run.path, start) as metrics:
                trainer.goodput.enter("step")
                step = fit(trainer, saver, metrics, start)
                with trainer.goodput.phase("save"):
                    saver.wait()
                result = finish(trainer, metrics, step)
        run.finish(result)
        code = 0
        return result
    except SeqlabError as error:
        code = error.exit_code
        raise
    finally:
        if begun:
            run.journal("stop", code=code, goodput=trainer.goodput.state())


def work(options: argparse.Namespace) -> None:
    """Trains what a command asks for and says what came of it."""
    fields = [f"--config.profile={options.profile}"] if options.profile else []
    settings = check(config_files.load_config(options.config, [*options.overrides, *fields]))
    with connected(options):
        cores.split(settings["parallel"]["num_devices"], number())
        check_same(settings)
        run = RunDirectory(options.workdir)
        run.check()
        done = run.result()
        result = train(settings, options.workdir, process_start())
    if not is_first():
        return
    if done == result:
        print(f"This run is finished (step {result['step']}); raise config.num_steps to go on.")
    print(report.final_text(result, Path(options.workdir)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__, overrides=True)
    parser.add_argument("--config", required=True, help="FILE.py:ARGUMENTS, see configs/")
    parser.add_argument("--workdir", required=True, help="run directory; made, or resumed")
    parser.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps: RUN/profile")
    add_process_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="tracebacks for all errors")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    keep_freed_memory()
    return leave(parser.run(work, argv))


if __name__ == "__main__":
    sys.exit(main())
