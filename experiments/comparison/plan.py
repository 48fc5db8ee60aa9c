"""What a comparison trains: each config with each seed, at budgets that are the same.

The plan is kept in plan.json, so that an interrupted comparison goes on with the widths and
steps, and the measured times, that it began with.
"""

import gc
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax

import models
import registry
import tasks
import train
from analysis import budgets
from configs.base import WIDTHS
from errors import ConfigError
from experiments import records
from trained import TOKEN_PREDICTORS, cache_of, check_same_experiment
from training import config_files, schema
from training.flops import training_flops
from training.run_directory import RunDirectory
from training.signals import StopFlag

FILE = "plan.json"
FORMAT = 1


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def make(
    configs: Sequence[str],
    overrides: Sequence[str],
    seeds: Sequence[int],
    match: str,
    warmup_steps: int,
) -> dict[str, Any]:
    """The plan of a new comparison, as JSON values.

    Args:
        configs: arguments of --config; the first one sets the budget of the others.
        match: a name of analysis.budgets.MATCHES, or "none".
    """
    loaded = [train.check(config_files.load_config(config, overrides)) for config in configs]
    labels = labels_of(configs)
    for label, settings in zip(labels, loaded, strict=True):
        check_predicts_tokens(label, settings)
    check_same_data([(label, data_of(s)) for label, s in zip(labels, loaded, strict=True)])
    measured: dict[str, float] = {}
    if match == "params":
        loaded = matched_parameters(loaded)
    elif match != "none":
        loaded, measured = matched_work(labels, loaded, match, warmup_steps)
    for label, settings in zip(labels, loaded, strict=True):
        sizes = ", ".join(f"{f} {settings['model'][f]}" for f in widths_of(settings))
        say(f"{label}: {settings['num_steps']} steps{', ' if sizes else ''}{sizes}")
    return {
        "format": FORMAT,
        "arguments": arguments(configs, overrides, seeds, match),
        "match": match,
        "seeds": list(seeds),
        "configs": [
            {"label": label, "settings": schema.to_json(settings)}
            for label, settings in zip(labels, loaded, strict=True)
        ],
        "measured_seconds_per_step": measured,
    }


def arguments(
    configs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], match: str
) -> dict[str, Any]:
    """What of the command line decides a plan."""
    return {
        "configs": list(configs),
        "overrides": list(overrides),
        "seeds": list(seeds),
        "match": match,
    }


def labels_of(configs: Sequence[str]) -> list[str]:
    """A short name for each --config, fit for a folder: its arguments, or its file."""
    short = []
    for config in configs:
        file, _, argument = config.partition(":")
        name = re.sub(r"(^|,)model=", r"\1", argument) or Path(file).stem
        short.append(re.sub(r"[^A-Za-z0-9=._-]+", "-", name))
    return [
        name if short.count(name) == 1 else f"{name}-{short[: i + 1].count(name)}"
        for i, name in enumerate(short)
    ]


def read(out: Path) -> dict[str, Any] | None:
    """The plan of a comparison that was begun in a folder, or None.

    Raises:
        ConfigError: it is damaged.
    """
    return records.read(out / FILE, FORMAT)


def write(out: Path, plan: Mapping[str, Any]) -> None:
    records.write(out / FILE, plan)


def run_folders(out: Path, plan: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Path]]:
    """(settings, folder) of every run, all configs with the first seed before the second."""
    for seed in plan["seeds"]:
        for config in plan["configs"]:
            settings = {**train.check(config["settings"]), "seed": seed}
            yield settings, out / "runs" / config["label"] / f"seed={seed}"


def train_all(todo: Sequence[tuple[dict[str, Any], Path]]) -> None:
    """Every run, (settings, folder), that is not finished.

    Raises:
        ConfigError: one that was begun or finished is of other settings; none is trained.
    """
    for settings, folder in todo:
        check_same_experiment(settings, RunDirectory(folder))
    for i, (settings, folder) in enumerate(todo, 1):
        if RunDirectory(folder).result() is None:
            say(f"run {i} of {len(todo)}: {folder}")
            train.train(settings, folder)
            jax.clear_caches()  # or the programs of all runs stay in memory
            gc.collect()
        else:
            say(f"run {i} of {len(todo)} is done: {folder}")


# ---------------------------------------------------------------- the same data


def data_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes losses comparable: the task, its text and the tokenizer."""
    task = settings["task"]
    return {name: task[name] for name in ("name", "source", "side", "tokenizer") if name in task}


def check_predicts_tokens(label: str, settings: Mapping[str, Any]) -> None:
    """Refuses a model that a report could not show, before it is trained; raises ConfigError."""
    name = settings["model"]["name"]
    kind = models.MODELS[name].kind
    if kind not in TOKEN_PREDICTORS:
        raise ConfigError(
            f"{label} is {name}, a model of kind {kind}: a comparison shows the loss of each "
            f"token, and needs kind {' or '.join(TOKEN_PREDICTORS)}."
        )


def check_same_data(found: Sequence[tuple[str, Any]], what: str = "data or tokenizers") -> None:
    """Refuses a comparison of losses or scores that do not mean the same.

    Args:
        found: (label, what must be equal).

    Raises:
        ConfigError: one line with both labels and the first field that differs.
    """
    (first, expected), *others = found
    for label, got in others:
        for name in [*expected, *(key for key in got if key not in expected)]:
            one, other = expected.get(name), got.get(name)
            if one != other:
                raise ConfigError(
                    f"{first} and {label} have unequal {what}: {name} is {registry.shown(one)} "
                    f"and {registry.shown(other)}. They cannot be compared."
                )


# ---------------------------------------------------------------- the same budget


def widths_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return WIDTHS.get(settings["model"]["name"], ())


def matched_parameters(loaded: list[dict]) -> list[dict]:
    """All with as many non-embedding parameters as the first, by their widths."""
    target = budgets.non_embedding_parameters(loaded[0]["model"])
    matched = [loaded[0]]
    for settings in loaded[1:]:
        block = settings["model"]
        count = budgets.non_embedding_parameters(block)
        if abs(count / target - 1) > budgets.TOLERANCE / 4:
            if not widths_of(settings):
                raise ConfigError(
                    f"--match=params: {block['name']} has no widths to choose (WIDTHS in "
                    f"configs/base.py). Choose another --match."
                )
            block = budgets.match_parameters(block, widths_of(settings), target)
        matched.append(train.check({**settings, "model": block}))
    return matched


def matched_work(
    labels: Sequence[str], loaded: list[dict], match: str, warmup_steps: int
) -> tuple[list[dict], dict[str, float]]:
    """All with the tokens, FLOPs or seconds of the first, by their number of steps."""
    measured: dict[str, float] = {}
    if match == "walltime":
        for label, settings in zip(labels, loaded, strict=True):
            measured[label] = seconds_per_step(settings, warmup_steps)
            say(f"{label}: {measured[label]:.4g} s per step, measured over {warmup_steps} steps")
        budget = loaded[0]["num_steps"] * measured[labels[0]]
        steps = [round(budget / measured[label]) for label in labels]
    else:
        costs = step_costs(loaded[0], match)
        budget = sum(next(costs) for _ in range(loaded[0]["num_steps"]))
        steps = [budgets.steps_for(step_costs(settings, match), budget) for settings in loaded]
    pairs = zip(loaded, [loaded[0]["num_steps"], *steps[1:]], strict=True)
    return [train.check({**settings, "num_steps": max(1, n)}) for settings, n in pairs], measured


def step_costs(settings: dict, match: str) -> Iterator[float]:
    """Predicted tokens or model FLOPs of each step of training, without training."""
    task = tasks.build(settings["task"], settings["seed"], cache_of(settings))
    model = models.build(settings["model"], task.vocab_size)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    known: dict[tuple, int] = {}

    def sums(params: Any, batch: dict) -> dict:
        return task.loss(model, {"params": params}, batch, jax.random.key(0), train=False)

    step = 0
    while True:
        batch = task.batch("train", step)
        if match == "tokens":
            yield task.count(batch)["tokens"]
        else:
            shapes = tuple(x.shape for x in batch.values())
            if shapes not in known:
                known[shapes] = training_flops(sums, params, batch)
            yield known[shapes]
        step += 1


def seconds_per_step(settings: dict, num_steps: int) -> float:
    """The median of some steps on this machine, after those that compiled."""
    task = tasks.build(settings["task"], settings["seed"], cache_of(settings))
    with tempfile.TemporaryDirectory() as folder, StopFlag() as stop:
        trainer = train.build_trainer(settings, task, RunDirectory(folder), stop)
        nothing_saved: Any = SimpleNamespace(restore=lambda *_, **__: None)
        trainer.restore(nothing_saved)
        seconds = []
        for step in range(2 * num_steps):
            batch = task.batch("train", step)
            began = time.perf_counter()
            trainer.dispatch(step, batch)
            trainer.read_pending()
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[num_steps:])
