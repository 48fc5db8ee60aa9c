"""The runs of a comparison as they stand on the disk, in groups that differ by their seed."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
import train
from analysis.budgets import non_embedding_parameters
from analysis.curves import AXES, Curve
from errors import ConfigError
from experiments.comparison.plan import (
    check_predicts_tokens,
    check_same_data,
    run_folders,
    say,
)
from trained import source_of
from training.metrics import read_metrics
from training.run_directory import CONFIG, RunDirectory

# What may differ between the seeds of one config, and does not make another config.
NOT_COMPARED = ("seed", "data_dir", "parallel", "log_every", "eval_every", "save_every")


class Run(NamedTuple):
    """One finished run: its config, its rows of metrics, its result and where it ran."""

    path: Path
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    environment: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    def split(self, name: str) -> list[dict[str, Any]]:
        """The rows of "train" or "validation"."""
        return [row for row in self.rows if row["split"] == name]

    def curve(self, axis: str) -> Curve:
        """Validation loss against step, tokens, flops or seconds."""
        rows = [row for row in self.split("validation") if np.isfinite(row["loss"])]
        return Curve(*(np.array([row[key] for row in rows], float) for key in (axis, "loss")))

    @property
    def budget(self) -> dict[str, float]:
        """What the run has used: steps, tokens, FLOPs, seconds; and its parameters."""
        last = self.split("validation")[-1]
        count = non_embedding_parameters(self.settings["model"])
        return {"params": count, **{axis: last[axis] for axis in AXES}}


class Group(NamedTuple):
    """Runs of one config, ordered by seed."""

    label: str
    runs: list[Run]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]


def planned(out: Path, plan: Mapping[str, Any]) -> list[Group]:
    """The finished runs of a plan; configs without one are left out."""
    found: dict[str, list[Run]] = {config["label"]: [] for config in plan["configs"]}
    for _, folder in run_folders(out, plan):
        if RunDirectory(folder).result() is None:
            say(f"left out, because it is not finished: {folder}")
        else:
            found[folder.parent.name].append(read(folder))
    groups = [Group(label, runs) for label, runs in found.items() if runs]
    if not groups:
        raise ConfigError(f"--report_only: {out} has no finished run yet.")
    return groups


def given(paths: Sequence[str | Path]) -> list[Group]:
    """Groups of run directories: those with one config, but for the seed, belong together.

    Raises:
        ConfigError: one of them is no run directory or not finished, or stands there twice.
    """
    groups: dict[str, list[Run]] = {}
    for path in paths:
        run = read(Path(path))
        config = {k: v for k, v in run.settings.items() if k not in NOT_COMPARED}
        groups.setdefault(json.dumps(config, sort_keys=True), []).append(run)
    found, labels = [], []
    for runs in groups.values():
        runs = sorted(runs, key=lambda run: run.seed)
        for one, other in itertools.pairwise(runs):
            if one.seed == other.seed:
                raise ConfigError(
                    f"{one.path} and {other.path} are runs of one config and one seed: "
                    "they say nothing about the spread. Give one of them."
                )
        labels.append(label_of(runs))
        found.append(runs)
    if len(set(labels)) < len(labels):
        labels = [f"{label}-{i}" for i, label in enumerate(labels, 1)]
    return [Group(label, runs) for label, runs in zip(labels, found, strict=True)]


def label_of(runs: Sequence[Run]) -> str:
    """The name of the first run's folder, or of the one above it, without its seed.

    A number at its end is the seed where all the runs agree in what stands before theirs.
    """
    path = runs[0].path
    name = path.parent.name if re.fullmatch(r"seed\W?\d+", path.name) else path.name
    name = re.sub(r"[-_.,]?seed[-_.=]?\d+$", "", name) or name
    bare = {re.sub(rf"[-_.,]{run.seed}$", "", run.path.name) for run in runs}
    return bare.pop() if name == path.name and len(bare) == 1 < len(runs) else name


def read(folder: Path) -> Run:
    """A finished run.

    Raises:
        ConfigError: there is no run, or it is not finished.
        DataError, StorageError: a file of it is damaged.
    """
    directory = RunDirectory(folder)
    config, result = directory.read_config(), directory.result()
    if config is None:
        raise ConfigError(f"{directory.path} is not a run directory (it has no {CONFIG}).")
    if result is None:
        raise ConfigError(
            f"{directory.path} is not finished. Run its command again, or leave it out."
        )
    environment = directory.read_environment() or {}
    run = Run(directory.path, train.check(config), read_metrics(folder), result, environment)
    if not len(run.curve("step").x):
        raise ConfigError(f"{directory.path} has no finite validation loss.")
    return run


def check_comparable(groups: Sequence[Group], tokenizers: bool = True) -> None:
    """Refuses runs that predict other text, or cut it otherwise.

    Args:
        tokenizers: must be equal too; scores of detokenised text do not need that.

    Raises:
        ConfigError: one line that names both runs, or one that has no loss of each token.
    """
    known: dict[str, str] = {}
    found = []
    for run in [run for group in groups for run in group.runs]:
        check_predicts_tokens(str(run.path), run.settings)
        task = run.settings["task"]
        block = json.dumps(task["source"], sort_keys=True)
        if block not in known:
            source = source_of(run.settings)
            known[block] = f"{task['source']['name']} {source.fingerprint()[:12]}"
        same = {"task": task["name"], "side": task.get("side"), "data": known[block]}
        if tokenizers:
            tokenizer = data.load_tokenizer(run.path / "tokenizer")
            same["tokenizer"] = f"{tokenizer.name} {tokenizer.fingerprint()[:12]}"
        found.append((str(run.path), same))
    check_same_data(found, "data or tokenizers" if tokenizers else "data")


def config_differences(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Fields in which the configs differ: {"field", "values": one for each group}."""
    flat = [dict(leaves(group.runs[0].settings)) for group in groups]
    names = list(dict.fromkeys(name for one in flat for name in one))
    skipped = ("seed", "data_dir")
    rows = []
    for name in names:
        values = [one.get(name, "-") for one in flat]
        if name not in skipped and any(value != values[0] for value in values):
            rows.append({"field": name, "values": values})
    return rows


def leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values of a config."""
    found = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", list(value) if isinstance(value, tuple) else value))
    return found
