"""What is pretraining worth? Fine-tuned against from scratch, by the number of labels.

  python experiments/pretraining.py --out=runs/pretraining --seeds=3
  python experiments/pretraining.py --out=runs/pretraining --models=gpt2-mini,lm-lstm-small

For each model: pretrained once on the texts of the training split without their labels, by the
objective of its family (GPT and LSTM: the next token; BERT: hidden words; ELMo: the next token
from both ends), then fine-tuned on 100 %, 10 % and 1 % of the labels; and the same config from
fresh parameters, with the same tokenizer, updates and early stopping. Seeds choose the labels, the
batches and the fresh parameters. The LSTM in GPT-1's recipe is the ablation of Radford et al. 2018
(table 5); how the gain grows as labels get fewer is Howard & Ruder's figure 3 (2018).

The same command goes on where it stopped; runs that are done are not run again.
--config.FIELD=VALUE sets a field of all runs that are fine-tuned; data_dir is of all.
Writes pretraining.csv and pretraining.png.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import train
from analysis import seeds
from configs import base
from errors import ConfigError, Parser
from experiments import learning_curves
from experiments.comparison import plan, runs
from experiments.comparison.pictures import legend, look_of, style
from registry import unknown
from training import config_files, cores
from training.files import save_figure, storage_errors, write_csv
from training.memory import keep_freed_memory

# Where each family is pretrained, and what that file needs to hear.
PRETRAINED_BY = (
    (base.BERT, "configs/bert.py:nsp=false,"),
    (base.BIDIRECTIONAL, "configs/elmo.py:"),
    (base.GPT | base.LANGUAGE_MODELS, "configs/gpt.py:"),
)
MODELS = {name: file for presets, file in PRETRAINED_BY for name in presets}
STARTS = ("pretrained", "scratch")
EVERY = 100  # updates between two evaluations; the best is taken


class Point(NamedTuple):
    """One finished run and its test accuracy."""

    model: str
    start: str
    fraction: float
    seed: int
    step: int
    accuracy: float


def pretrain(model: str, options: Namespace) -> Path:
    """The run of a model on the texts alone, made if it is not there."""
    folder = options.out / "pretrained" / model
    string = f"{MODELS[model]}model={model},data=tweets{',smoke' * options.smoke}"
    overrides = [given for given in options.overrides if given.startswith("--config.data_dir=")]
    overrides += [] if options.smoke else [f"--config.num_steps={options.pretrain_steps}"]
    plan.train_all([(train.check(config_files.load_config(string, overrides)), folder)])
    return folder


def fine_tuning(run: Path, start: str, fraction: float, seed: int, options: Namespace) -> dict:
    """The settings of one run on labels: the model and the tokenizer of the pretrained run."""
    string = f"init_from={run},fraction={fraction},seed={seed}{',smoke' * options.smoke}"
    overrides = list(options.overrides)
    if start == "scratch":
        overrides.append("--config.init_from.inner=")
    if not options.smoke:
        every = [f"--config.{name}={EVERY}" for name in ("eval_every", "save_every")]
        steps = [f"--config.num_steps={options.steps}", "--config.early_stopping_patience=2"]
        rate = f"--config.optimizer.learning_rate={options.learning_rate}"
        overrides = [*every, *steps, rate, *overrides]
    return train.check(config_files.load_config(f"configs/classification.py:{string}", overrides))


def compare(model: str, options: Namespace) -> list[Point]:
    """Trains all runs of a model and reads their scores."""
    run, todo, names = pretrain(model, options), [], []
    for seed in options.seeds:
        for fraction in options.fractions:
            for start in STARTS:
                folder = options.out / model / f"{start}-{fraction:g}" / f"seed={seed}"
                todo.append((fine_tuning(run, start, fraction, seed, options), folder))
                names.append((model, start, fraction, seed))
    plan.train_all(todo)
    found = []
    for name, (_, folder) in zip(names, todo, strict=True):
        result = runs.read(folder).result
        found.append(Point(*name, result["step"], result["scores"]["accuracy"]))
    return found


# ---------------------------------------------------------------- what it says


def summary(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row for each model and fraction: both means, and what pretraining adds, paired by seed."""
    rows = []
    for model, fraction in dict.fromkeys((p.model, p.fraction) for p in points):
        scores = {
            start: [p.accuracy for p in points if p[:3] == (model, start, fraction)]
            for start in STARTS
        }
        gain = seeds.difference(scores["pretrained"], scores["scratch"])
        row: dict[str, Any] = {"model": model, "fraction": fraction}
        for start, values in scores.items():
            row[start] = float(np.mean(values))
            row |= {f"{start}_least": min(values), f"{start}_most": max(values)}
        rows.append(row | {"gain": gain.mean, "low": gain.low, "high": gain.high})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text; ranges are over seeds."""
    lines = [f"{'model':16}{'labels':>8}   {'pretrained':24}{'from scratch':24}difference"]
    for row in rows:
        line = f"{row['model']:16}{row['fraction']:8.0%}   "
        for start in STARTS:
            ends = f"({row[f'{start}_least']:.3f} to {row[f'{start}_most']:.3f})"
            line += f"{row[start]:.3f} {ends:18}"
        lines.append(f"{line}{row['gain']:+.3f}")
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy against the share of the labels, a panel for each model; bars span the seeds."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row["model"] for row in rows))
    looks = look_of(list(STARTS))
    figure = Figure(figsize=(3.2 * len(models) + 0.8, 3.8), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        own = [row for row in rows if row["model"] == model]
        x = np.array([100 * row["fraction"] for row in own])
        for start in STARTS:
            y, least, most = (
                np.array([row[f"{start}{end}"] for row in own]) for end in ("", "_least", "_most")
            )
            spread = [y - least, most - y]
            label = "fine-tuned" if start == "pretrained" else "from scratch"
            axes.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=label, **looks[start])
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g} %" for value in x])
        axes.minorticks_off()
        axes.set_title(model, fontsize=10)
        axes.set_xlabel("of the labels")
        style(axes)
    panels[0].set_ylabel("accuracy on the test split")
    legend(figure)
    save_figure(path, figure, dpi=140)


def work(options: Namespace) -> None:
    """Runs what is missing, then the table and the picture."""
    for model in options.models:
        if model not in MODELS:
            raise ConfigError(f"--models: {unknown('model', model, MODELS)}")
    options.seeds = learning_curves.seeds_of(options.seeds)
    cores.split()
    keep_freed_memory()
    points = [point for model in options.models for point in compare(model, options)]
    rows = summary(points)
    with storage_errors("write the comparison to", options.out):
        write_csv(options.out / "pretraining.csv", Point._fields, points)
        draw(options.out / "pretraining.png", rows)
    print(f"{table(rows)}\nWrote {options.out}/pretraining.png and pretraining.csv.")


def numbers(text: str) -> list[float]:
    """Parts of the labels, most first: '1,0.1'."""
    found = sorted({float(part) for part in text.split(",")}, reverse=True)
    if not all(0 < part <= 1 for part in found):
        raise ValueError(text)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__, overrides=True)
    names = "gpt2-mini,lm-lstm-small,bert-mini,elmo-small"
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs and the table")
    parser.add_argument("--models", default=names, type=lambda text: text.split(","))
    parser.add_argument("--fractions", default="1,0.1,0.01", type=numbers, help="of the labels")
    parser.add_argument("--seeds", default="3", help="how many, or which: 0,1,7")
    parser.add_argument("--pretrain_steps", default=2000, type=int)
    parser.add_argument("--steps", default=1500, type=int, help="updates of fine-tuning, at most")
    parser.add_argument("--learning_rate", default=5e-4, type=float, help="of fine-tuning")
    parser.add_argument("--smoke", action="store_true", help="all runs in seconds")
    return parser.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
