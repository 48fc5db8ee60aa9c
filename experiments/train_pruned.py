"""Would a model with so few heads have learned as much from the beginning? (Li et al. 2021)

  python experiments/prune_heads.py --workdir=RUN
  python experiments/train_pruned.py --workdir=RUN
  python experiments/train_pruned.py --workdir=RUN --seed=1

Trains the config of a run from scratch with as many heads in each attention layer as
prune_heads.py has left of its model (RUN/analysis/pruning.json), measures it on the examples of
that study, and adds it to pruning.csv and pruning.png beside the pruned ones. The same command
goes on where it stopped. The new run is RUN/analysis/from_scratch/seed=N, or --out.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError, Parser
from experiments.prune_heads import save_curves
from training.memory import keep_freed_memory


def read_study(folder: Path) -> dict[str, Any]:
    """The options and numbers of prune_heads.py.

    Raises:
        ConfigError: it was not run, or cut no smaller model.
    """
    path = folder / "pruning.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Run experiments/prune_heads.py."
        ) from error
    if "smaller" not in found:
        raise ConfigError(f"{path} knows of no smaller model: only some attention can be cut.")
    return found


def read_points(folder: Path) -> list[Any]:
    """The points that prune_heads.py has written."""
    from experiments.head_pruning import Point

    with (folder / "pruning.csv").open(encoding="utf-8", newline="") as file:
        return [
            Point(
                method=row["method"],
                seed=int(row["seed"]),
                kept=int(row["kept"]),
                loss=float(row["loss"]),
                change=float(row["change"]),
                low=float(row["low"]),
                high=float(row["high"]),
                parts=row.get("parts", ""),
            )
            for row in csv.DictReader(file)
        ]


def with_heads(settings: dict[str, Any], heads_kept: Sequence[int], seed: int) -> dict[str, Any]:
    """A run's config with other heads and another seed; layers that differ are no scan."""
    import train

    block = {**settings["model"], "heads_kept": tuple(heads_kept)}
    if "scan_layers" in block:
        block["scan_layers"] = False
    return train.check({**settings, "seed": seed, "model": block})


def work(options: argparse.Namespace) -> None:
    """Trains, measures, and adds the point."""
    import numpy as np

    import train
    from experiments.head_pruning import SCRATCH, Proposal, Study
    from trained import load_run, load_task
    from training import cores

    cores.split()  # before the first operation of JAX
    folder = options.pruning or Path(options.workdir) / "analysis"
    known = argparse.Namespace(**read_study(folder))
    run = load_run(options.workdir, None, known.checkpoint)
    settings = with_heads(run.settings, known.smaller["heads_kept"], options.seed)
    out = options.out or folder / "from_scratch" / f"seed={options.seed}"
    print(f"heads_kept={known.smaller['heads_kept']}, seed {options.seed}: {out}", flush=True)
    train.train(settings, out)

    study, fresh = Study(run, load_task(run), known), load_run(out, None)
    losses = [study.losses(one.model, [one.variables]) for one in (run, fresh)]
    trained = Proposal(SCRATCH, options.seed, np.ones(known.smaller["kept"]))
    (point,) = study.points([trained], np.concatenate(losses), study.weights())
    others = [p for p in read_points(folder) if p[:2] != point[:2]]
    save_curves(folder, [*others, point])
    print(
        f"From scratch with {point.kept} heads: {point.change:+.4f} ({point.low:+.4f} to "
        f"{point.high:+.4f}) nats per token. Added to {folder}/pruning.csv and pruning.png."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, help="the run that was pruned")
    parser.add_argument("--pruning", type=Path, help="what prune_heads.py wrote [RUN/analysis]")
    parser.add_argument("--seed", type=int, default=0, help="of the new run")
    parser.add_argument("--out", type=Path, help="the new run's directory")
    keep_freed_memory()
    return parser.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
