"""How many attention heads can go, and does it matter which? (Michel et al. 2019, section 4)

  python experiments/prune_heads.py --workdir=runs/translation
  python experiments/prune_heads.py --workdir=runs/translation --methods=random,l0 --keep=20

Removes heads step by step and measures the loss of a split: by importance, measured anew at each
step; by the norm of their weights; in random orders over several seeds, the control without which
no curve says anything (Budhraja et al. 2020); by hard-concrete gates at several penalties (l0,
Voita et al. 2019); by Gumbel top-k gates (top_k, Li et al. 2021). Gates are learned on training
batches, the model stays as it is. Orders come from --order_split, curves from --split. A
Transformer, or an RNN with attention='multi_head', then loses its heads for good, down to --keep,
and its speed and memory are measured.
Writes pruning.csv, pruning.json and pruning.png into RUN/analysis, or into --output.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from errors import ConfigError, Parser
from experiments.ablate_heads import batches_of
from registry import unknown
from training.memory import keep_freed_memory

METHODS = ("importance", "weight_norm", "random", "l0", "top_k")
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats per token and open head


class Point(NamedTuple):
    """The loss with the heads that one method keeps, against that with all."""

    method: str
    seed: int
    kept: int
    loss: float
    change: float
    low: float
    high: float


class Study:
    """A model whose heads are removed, and the batches that say which and at what price."""

    def __init__(self, run: Any, task: Any, options: argparse.Namespace) -> None:
        from analysis.heads import Heads
        from analysis.pruning import least_heads

        self.run, self.task, self.options = run, task, options
        self.heads = Heads(run.model, run.variables)
        steps = np.linspace(len(self.heads), 0, min(options.steps, len(self.heads)) + 1)
        fewest = least_heads(run.model)
        half = max(fewest, len(self.heads) // 2)
        self.keep = half if options.keep is None else options.keep
        if not fewest <= self.keep <= len(self.heads):
            raise ConfigError(f"--keep must be in {fewest} to {len(self.heads)}, got {self.keep}.")
        counts = {*np.round(steps).astype(int).tolist(), self.keep}
        self.kept = sorted(counts, reverse=True)  # --keep among them: no ties at the cut
        self.batches = batches_of(task, options.split, options.limit)
        self.scoring = batches_of(task, options.order_split, options.limit)

    @property
    def model(self) -> tuple[Any, Any, Any, Any]:
        return self.task, self.run.model, self.run.variables, self.heads

    def training_batches(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.task.batch("train", step) for step in range(self.options.gate_steps))

    def masks(self, method: str, tick: Callable[[], None]) -> list[tuple[int, np.ndarray]]:
        """(seed, mask) of everything that a method proposes."""
        from analysis import gates, pruning

        seed = self.options.seed
        if method == "importance":
            normalise = self.options.normalise
            masks = pruning.masks_by_importance(
                *self.model, self.scoring, self.kept, normalise=normalise
            )
        elif method == "weight_norm":
            scores = pruning.weight_norms(*self.model[1:])
            masks = pruning.nested_masks(scores, self.kept)
        elif method == "random":
            found = []
            for own in range(seed, seed + self.options.seeds):
                scores = np.random.default_rng(own).random(len(self.heads))
                found += [(own, mask) for mask in pruning.nested_masks(scores, self.kept)]
            tick()
            return found
        elif method == "l0":
            masks = np.array(
                [
                    gates.learn_l0(*self.model, self.training_batches(), penalty=p, seed=seed)
                    for p in PENALTIES
                ]
            )
        else:
            inner = self.kept[1:-1][:: max(1, len(self.kept) // 4)] or self.kept[:1]
            masks = np.concatenate(
                [
                    pruning.nested_masks(
                        gates.learn_top_k(
                            *self.model, self.training_batches(), count=count, seed=seed
                        ),
                        [count],
                    )
                    for count in inner
                ]
            )
        tick()
        return [(seed, mask) for mask in masks]

    def curves(self, tick: Callable[[], None]) -> tuple[list[Point], dict[str, np.ndarray]]:
        """The losses of all masks of all methods, and the masks of each method."""
        from analysis import bootstrap
        from analysis.heads import Ablation

        proposed = [
            (method, *found)
            for method in self.options.methods
            for found in self.masks(method, tick)
        ]
        masks = np.array([np.ones(len(self.heads)), *(mask for *_, mask in proposed)], np.float32)
        losses_ME, weights_E = Ablation(*self.model).over(masks, self.batches, tick)
        changes_ME = losses_ME[1:] - losses_ME[:1]
        sure = bootstrap.compare_means(
            changes_ME, weights_E, self.options.resamples, self.options.seed
        )
        means_M = losses_ME[1:].sum(1) / weights_E.sum()
        points = [
            Point(method, seed, int(mask.sum()), *map(float, numbers))
            for (method, seed, mask), *numbers in zip(
                proposed, means_M, sure.change, sure.low, sure.high, strict=True
            )
        ]
        by_method = {
            m: np.array([x for n, _, x in proposed if n == m]) for m in self.options.methods
        }
        return points, by_method

    def cut(self, mask: np.ndarray) -> dict[str, Any]:
        """What a model without these heads computes, how fast, and in how much memory."""
        import jax

        import models
        from analysis.pruning import remove_heads

        batch = self.batches[0]
        found: dict[str, Any] = {"kept": int(mask.sum())}
        plain = self.run.model, self.run.variables
        sides = {"whole": plain, "smaller": remove_heads(*plain, mask)}
        outputs = {}
        for name, (model, variables) in sides.items():
            losses = jax.jit(self.task.token_losses, static_argnums=0)
            program = losses.lower(model, variables, batch).compile()
            outputs[name] = np.asarray(program(variables, batch)[0])
            seconds = []
            for _ in range(7):
                start = time.perf_counter()
                jax.block_until_ready(program(variables, batch))
                seconds.append(time.perf_counter() - start)
            analysis = program.memory_analysis()
            found[name] = {
                "parameters": models.num_parameters(variables),
                "seconds": float(np.median(seconds)),
                "bytes": getattr(analysis, "temp_size_in_bytes", 0),
            }
        masked = self.heads.masked(self.run.variables, mask)
        expected = self.task.token_losses(self.run.model, masked, batch)[0]
        found["largest_difference"] = float(np.abs(outputs["smaller"] - expected).max())
        found["heads_kept"] = list(sides["smaller"][0].heads_kept)
        return found


def save_curves(folder: Path, points: Sequence[Point]) -> None:
    """The table and the picture."""
    from experiments.heads_picture import draw_curves
    from training.files import storage_errors, write_csv

    rows = ([*point[:3], *(f"{x:.7g}" for x in point[3:])] for point in points)
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
    options.methods = options.methods.split(",")
    for method in options.methods:
        if method not in METHODS:
            raise ConfigError(f"--methods: {unknown('method', method, METHODS)}")


def smaller_model(study: Study, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    """The model cut down to --keep heads, by importance if that was asked for, else by norm."""
    from analysis import pruning

    if "importance" in masks:
        by, ranks_X = "importance", masks["importance"].sum(0)  # removals that each survives
    else:
        by = "weight_norm"
        ranks_X = pruning.weight_norms(*study.model[1:])
    (mask,) = pruning.nested_masks(ranks_X, [study.keep])
    return {"by": by, **study.cut(mask)}


def work(options: argparse.Namespace) -> None:
    """Prunes the model of a run and keeps what was found."""
    check(options)
    from analysis.pruning import is_separable, require_separable
    from trained import load_run, load_task
    from training.progress import ProgressBar

    run = load_run(options.workdir, None, options.checkpoint)
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
        found = numbers["smaller"] = smaller_model(study, masks)
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
    parser.add_argument("--keep", type=int, help="heads of the smaller model; default: half")
    parser.add_argument("--limit", type=int, default=0, help="examples, about; 0: all")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder; default: analysis in the run")
    keep_freed_memory()
    return parser.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
