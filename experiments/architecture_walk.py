"""What does each part of the Transformer bring to an RNN? (Domhan 2018)

  python experiments/architecture_walk.py --out=runs/walk --seeds=3
  python experiments/architecture_walk.py --out=runs/walk-bible --data=bible --size=small

From an LSTM with attention to the Transformer, one borrowed part at a time; each step is one
config string of configs/architecture_walk.py, trained with every seed by
experiments/learning_curves.py, whose report is written too. The same command again goes on where
it stopped. --config.FIELD=VALUE sets a field of all steps.

Writes walk.csv and walk.png: the loss of each step, and what it adds to the step before it, paired
by seed. The steps have the same tokens, not the same parameters (the report lists both).
"""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis import seeds
from configs.architecture_walk import STEPS
from errors import Parser
from experiments import learning_curves
from training.files import save_figure, storage_errors, write_csv


def walk(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a step: its loss, and its difference from the step before, with bands over seeds.

    Args:
        numbers: of a report whose configs are the steps in their order.
    """
    found, before = [], None
    for name, row in zip(STEPS, numbers["final"]["rows"], strict=True):
        config = next(one for one in numbers["configs"] if one["label"] == row["label"])
        step = {
            "step": name,
            "loss": row["mean"],
            "low": row["low"],
            "high": row["high"],
            "params": config["params"],
            "seeds": len(row["per_seed"]),
        }
        if before is not None:
            delta = seeds.difference(row["per_seed"], before)
            step |= {"delta": delta.mean, "delta_low": delta.low, "delta_high": delta.high}
            step["p"] = delta.p
        before = row["per_seed"]
        found.append(step)
    return found


def table(steps: Sequence[Mapping[str, Any]]) -> str:
    """The walk as text."""
    lines = [f"{'step':24}{'parameters':>12}{'loss':>9}{'delta':>10}   95 % interval"]
    for i, step in enumerate(steps):
        line = f"{'+ ' * (i > 0) + step['step']:24}{step['params']:12,.0f}{step['loss']:9.4f}"
        if "delta" in step:
            line += f"{step['delta']:+10.4f}"
            if step["seeds"] > 1:
                line += f"   {step['delta_low']:+.4f} to {step['delta_high']:+.4f}"
        lines.append(line)
    return "\n".join(lines)


def draw(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Losses from step to step, and what each adds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(steps))
    loss, low, high = (np.array([s[name] for s in steps]) for name in ("loss", "low", "high"))
    left.errorbar(loss, y, xerr=[loss - low, high - loss], fmt="o-", color="#0072B2", capsize=3)
    names = [f"{'+ ' * (i > 0)}{s['step'].replace('_', ' ')}" for i, s in enumerate(steps)]
    left.set_yticks(y, names)
    left.invert_yaxis()
    left.set_xlabel("validation loss, nats per token")
    added = [[s[name] for s in steps[1:]] for name in ("delta", "delta_low", "delta_high")]
    delta, low, high = map(np.array, added)
    colours = ["#009E73" if value < 0 else "#D55E00" for value in delta]
    right.barh(y[1:], delta, color=colours, alpha=0.75, height=0.6)
    errors = [delta - low, high - delta]
    right.errorbar(delta, y[1:], xerr=errors, fmt="none", color="0.2", capsize=3)
    right.axvline(0, color="0.4", lw=0.8)
    right.set_xlabel("what the step adds to the loss (less is better)")
    for axes in (left, right):
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("From RNN to Transformer, one part at a time", fontsize=11)
    save_figure(path, figure, dpi=140)


def save(out: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    with storage_errors("write the walk to", out):
        names = list(steps[-1])  # of the first, which adds nothing, some are empty
        write_csv(out / "walk.csv", names, ([step.get(name) for name in names] for step in steps))
        draw(out / "walk.png", steps)


def compare(options: Namespace) -> None:
    """Trains the steps, and writes the walk beside the report."""
    given = f"data={options.data},size={options.size}{',smoke' * options.smoke}"
    configs = [f"--config=configs/architecture_walk.py:step={name},{given}" for name in STEPS]
    common = [f"--out={options.out}", f"--seeds={options.seeds}", "--match=tokens"]
    arguments = [*configs, *common, *options.overrides]
    learning_curves.compare(learning_curves.make_parser().read(arguments))
    numbers = json.loads((options.out / "numbers.json").read_text(encoding="utf-8"))
    steps, said = walk(numbers), numbers["final"]["said"]
    save(options.out, steps)
    print(f"{table(steps)}\n{said}\nWrote {options.out}/walk.png and walk.csv.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__, overrides=True)
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs and the report")
    parser.add_argument("--data", default="toy_language", help="see configs/architecture_walk.py")
    parser.add_argument("--size", default="tiny", help="tiny or small")
    parser.add_argument("--seeds", default="3", help="how many, or which: 0,1,7")
    parser.add_argument("--smoke", action="store_true", help="the whole walk in a minute or two")
    return parser.run(compare, argv)


if __name__ == "__main__":
    sys.exit(main())
