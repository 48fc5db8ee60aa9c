"""How far back does the gradient reach, and how long does a network remember?

  python experiments/gradient_horizon.py --out=runs/horizon
  python experiments/gradient_horizon.py --workdir=runs/lm-lstm --out=runs/lm-lstm-horizon

Without a run, recurrent networks of five kinds and a Transformer learn a delayed copy;
|dL_T / ds_{T-k}| against k is measured before, halfway and at the end, beside the spectral
radii of the recurrent matrices, and the delayed copy and the adding problem are learned at
several lengths. With a run of a language model, the first are measured at its checkpoints, on
validation text. Writes horizon.csv, radii.csv, memory.csv and horizon.png.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import data
from analysis.gradient_horizon import Radius, horizon, spectral_radii
from errors import ConfigError, Parser
from experiments import horizon_picture
from experiments.memory_tasks import (
    CELLS,
    TRANSFORMER,
    adding_problem,
    copy_problem,
    train,
)
from trained import load_run, load_task
from training import checkpoint_reader
from training.files import storage_errors, write_csv

LEARNING_RATE = 1e-2
SOLVED = 0.05  # error over chance


class Sizes(NamedTuple):
    """How large the experiment is: states, rows, delay of the horizon, its steps of training,
    and the lengths and the most steps of the memory tasks, checked `every` so many."""

    size: int = 32
    rows: int = 32
    delay: int = 30
    num_steps: int = 600
    lengths: tuple[int, ...] = (8, 20, 50)
    memory_steps: int = 500
    every: int = 100


SMOKE = Sizes(4, 4, 3, 2, (4,), 2, 1)


class Horizon(NamedTuple):
    """Gradients of one model after some steps of training, and its radii."""

    model: str
    step: int
    norms: np.ndarray
    radii: list[Radius]


class Memory(NamedTuple):
    """How well a cell learned a task of a length; error 1 is chance."""

    task: str
    model: str
    length: int
    error: float
    steps: int


def horizons_of_copy(sizes: Sizes) -> Iterable[Horizon]:
    """Every model while it learns a delayed copy: the loss of its last symbol."""
    half = max(1, sizes.num_steps // 2)
    for name in [*CELLS, TRANSFORMER]:
        problem = copy_problem(name, sizes.size, sizes.rows, sizes.delay)
        batch = problem.draw(jax.random.key(99))
        for step, error, params in train(problem, 2 * half, LEARNING_RATE, half):
            print(f"{name}, step {step}: error {error:.3f}", flush=True)
            norms = horizon(problem.model, params, batch["inputs"], batch["targets"][:, -1])
            yield Horizon(name, step, norms, spectral_radii(params))


def horizons_of_run(workdir: str) -> Iterable[Horizon]:
    """A run's language model at each of its checkpoints, on rows of validation text."""
    run = load_run(workdir, "language_model")
    settings, (inputs, targets) = run.settings, validation_rows(load_task(run))
    for step in checkpoint_reader.good_steps(Path(workdir) / "checkpoints"):
        params = load_run(workdir, "language_model", step).variables["params"]
        norms = horizon(run.model, params, inputs, targets[:, -1])
        yield Horizon(settings["model"]["name"], step, norms, spectral_radii(params))


def validation_rows(task: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T) of a language model: long rows of text, cut alike.

    The last target is a word in most of them: where all documents are of one length their end
    is certain, and its loss has next to no gradient.
    """
    batch = task.batch("validation", 0)
    lengths_B = (batch["segments"] != 0).sum(axis=1)
    rows = lengths_B >= max(2, lengths_B.max() // 2)
    inputs_BT, targets_BT = (
        batch[name][rows, : lengths_B[rows].min()] for name in ("inputs", "targets")
    )
    words_T = np.flatnonzero((targets_BT != data.EOS).mean(axis=0) > 0.5)
    length = max(2, 1 + words_T.max(initial=0))
    return inputs_BT[:, :length], targets_BT[:, :length]


def memories(sizes: Sizes) -> Iterable[Memory]:
    """Every cell at both tasks and all lengths."""
    for task, make in (("delayed copy", copy_problem), ("adding", adding_problem)):
        for length in sizes.lengths:
            for name in CELLS:
                problem = make(name, sizes.size, sizes.rows, length)
                found = train(problem, sizes.memory_steps, LEARNING_RATE, sizes.every, SOLVED)
                step, error, _ = found[-1]
                print(f"{task}, T {length}, {name}: error {error:.3f} at {step}", flush=True)
                yield Memory(task, name, length, error, step)


def save(out: Path, found: list[Horizon], memory: list[Memory]) -> None:
    """The tables and the picture."""
    norms = [(h.model, h.step, k, x) for h in found for k, x in enumerate(h.norms.tolist(), 1)]
    radii = [(h.model, h.step, *radius) for h in found for radius in h.radii]
    with storage_errors("write into", out):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "horizon.csv", ("model", "step", "k", "gradient_norm"), norms)
        write_csv(out / "radii.csv", ("model", "step", *Radius._fields), radii)
        write_csv(out / "memory.csv", Memory._fields, memory)
    horizon_picture.draw(out / "horizon.png", found, memory, SOLVED)


def measure(options: argparse.Namespace) -> None:
    """Writes the tables and the picture of a run, or of networks that learn here."""
    sizes = SMOKE if options.smoke else Sizes()
    if options.workdir:
        found, memory = list(horizons_of_run(options.workdir)), []
        if not found:
            raise ConfigError(f"--workdir {options.workdir} has no checkpoints.")
    else:
        found, memory = list(horizons_of_copy(sizes)), list(memories(sizes))
    save(options.out, found, memory)
    print(f"Wrote {options.out}/horizon.png and its tables.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--out", required=True, type=Path, help="folder of the tables and the picture"
    )
    parser.add_argument("--workdir", help="a run of train.py with a language model")
    parser.add_argument("--smoke", action="store_true", help="the whole path in seconds")
    return parser.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
