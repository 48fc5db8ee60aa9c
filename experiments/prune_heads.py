"""How many attention heads can go, and does it matter which? (Michel et al. 2019, section 4)

  python experiments/prune_heads.py --workdir=runs/translation
  python experiments/prune_heads.py --workdir=runs/translation --methods=random,l0 --keep=20

Removes heads step by step and measures the loss of a split: by importance, measured anew at each
step; by the norm of their weights; in random orders over several seeds, the control without which
no curve says anything (Budhraja et al. 2020); by hard-concrete gates at several penalties (l0,
Voita et al. 2019); by Gumbel top-k gates (top_k, Li et al. 2021). Gates are learned on training
batches and the model stays as it is, unless --tune_model lets it learn with them, as Voita et al.
did: by the optimizer of the run at a small constant rate. Orders come from --order_split,
curves from --split. A Transformer, or an RNN with attention='multi_head', then loses its heads for
good, down to --keep, and its speed and memory are measured.
Writes pruning.csv (with what is left of each part: does the encoder's attention to itself go
first?), pruning.json and pruning.png into RUN/analysis, or into --output.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError, Parser
from registry import unknown
from training.memory import keep_freed_memory

METHODS = ("importance", "weight_norm", "random", "l0", "top_k")


def save_curves(folder: Path, points: Sequence[Any]) -> None:
    """The table and the picture."""
    from experiments.head_pruning import Point
    from experiments.heads_picture import draw_curves
    from training.files import storage_errors, write_csv

    rows = ([f"{x:.7g}" if isinstance(x, float) else x for x in point] for point in points)
    with storage_errors("write into", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "pruning.csv", Point._fields, rows)
        draw_curves(folder / "pruning.png", points)


def save_numbers(folder: Path, numbers: dict[str, Any]) -> None:
    """The settings, and what is known of the smaller model."""
    from training.files import storage_errors, write_atomic

    with storage_errors("write into", folder):
        write_atomic(folder / "pruning.json", json.dumps(numbers, indent=1) + "\n")


def check(options: argparse.Namespace) -> None:
    """Reads --methods, and refuses what makes no sense before any file is read."""
    for name, least in {
        "steps": 1,
        "seeds": 1,
        "gate_steps": 1,
        "limit": 0,
        "resamples": 1,
    }.items():
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(options, name)}.")
    if not 0 < options.tune_rate < float("inf"):
        raise ConfigError(f"--tune_rate must be above 0, got {options.tune_rate}.")
    options.methods = options.methods.split(",")
    if options.tune_model and not {"l0", "top_k"} & set(options.methods):
        raise ConfigError("--tune_model needs a method with gates: --methods=l0 or top_k.")
    for method in options.methods:
        if method not in METHODS:
            raise ConfigError(f"--methods: {unknown('method', method, METHODS)}")


def work(options: argparse.Namespace) -> None:
    """Prunes the model of a run and keeps what was found."""
    check(options)
    from analysis.pruning import is_separable, require_separable
    from experiments.head_pruning import Study
    from trained import TOKEN_PREDICTORS, load_run, load_task
    from training.progress import ProgressBar

    run = load_run(options.workdir, TOKEN_PREDICTORS, options.checkpoint)
    if "weight_norm" in options.methods or options.keep is not None:
        require_separable(run.model)
    task = load_task(run)
    study = Study(run, task, options)
    with ProgressBar(len(options.methods) + len(study.batches), stream=sys.stderr) as bar:
        points, masks = study.curves(bar.advance)
    numbers = {
        **{k: v for k, v in vars(options).items() if k != "output"},
        "steps_of_checkpoints": run.steps,
        "fingerprint": task.fingerprint(),
    }
    folder = options.output or Path(options.workdir) / "analysis"
    save_curves(folder, points)
    save_numbers(folder, numbers)
    if is_separable(run.model):
        found = numbers["smaller"] = study.smaller_model(masks)
        small, whole = (1e3 * found[name]["seconds"] for name in ("smaller", "whole"))
        save_numbers(folder, numbers)
        print(f"With {found['kept']} heads {small:.1f} ms a batch, with all {whole:.1f}.")
    print(f"Wrote {folder}/pruning.csv, pruning.json and pruning.png.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    splits = ("train", "validation", "test")
    parser.add_argument("--workdir", required=True, help="run directory of a model with attention")
    parser.add_argument("--checkpoint", type=int, help="step; default: as the final scores")
    parser.add_argument("--split", choices=splits, default="test", help="of the curves")
    parser.add_argument("--order_split", choices=splits, default="validation", help="of the orders")
    parser.add_argument("--methods", default="importance,weight_norm,random", help="with commas")
    parser.add_argument("--normalise", action="store_true", help="importance by its layer's norm")
    parser.add_argument("--steps", type=int, default=10, help="removals until none is left")
    parser.add_argument("--seeds", type=int, default=5, help="random orders")
    parser.add_argument("--gate_steps", type=int, default=200, help="batches that gates learn on")
    parser.add_argument("--tune_model", action="store_true", help="together with its gates")
    parser.add_argument("--tune_rate", type=float, default=0.1, help="of the run's learning rate")
    parser.add_argument("--keep", type=int, help="heads of the smaller model; default: half")
    parser.add_argument("--limit", type=int, default=0, help="examples, about; 0: all")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder; default: analysis in the run")
    keep_freed_memory()
    return parser.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
