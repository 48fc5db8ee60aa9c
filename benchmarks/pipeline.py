"""How much faster batches are made than training consumes them.

  python -m benchmarks.pipeline
  python -m benchmarks.pipeline --config=configs/translation.py:data=my/folder

Both sides work on the same batches of the config's task: one side only makes them, through
the prefetching iterator of the training loop; the other trains on batches made before.
"""

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

import data
import models
import tasks
from benchmarks import harness, machine
from benchmarks.ours import TrainStep
from training import config_files, memory, schema

TITLE = "Input pipeline"
GOAL = 20.0
MODELS = ("transformer-small", "lstm-attention-small")
BATCHES_MADE, BATCHES_TRAINED = 400, 10


def settings_of(config: str) -> dict[str, Any]:
    """The checked settings of a config string."""
    loaded = config_files.load_config(config, [])
    return schema.validate(loaded, models=models.MODELS, tasks=tasks.TASKS)


def num_tokens(batches: list[dict[str, Any]]) -> int:
    """Predicted tokens of some batches."""
    return sum(int(batch["weights"].sum()) for batch in batches)


def make_batches(batch: Callable[[int], dict[str, Any]]) -> None:
    """Makes all batches and drops them."""
    for _ in data.prefetch(batch, 0, BATCHES_MADE):
        pass


def train_on(step: TrainStep) -> None:
    """Some updates, one after another."""
    for _ in range(BATCHES_TRAINED):
        step()


def measure(config: str, rounds: int) -> harness.Row:
    """One row: tokens per second made over tokens per second trained on."""
    settings = settings_of(config)
    task = tasks.build(settings["task"], settings["seed"], settings["data_dir"] or ".cache")
    made = [task.batch("train", step) for step in range(BATCHES_MADE)]
    # As many as one turn trains on, so that every turn sees the same shapes.
    trained = made[:BATCHES_TRAINED]
    step = TrainStep(settings["model"], task, itertools.cycle(trained).__next__)
    sides = {
        "made": functools.partial(make_batches, functools.partial(task.batch, "train")),
        "trained": functools.partial(train_on, step),
    }
    timing = harness.alternate(sides, rounds, warm_up=1, per_turn=1)
    tokens = {"made": num_tokens(made), "trained": num_tokens(trained)}
    per_token = harness.Timing(
        {name: [s / tokens[name] for s in seconds] for name, seconds in timing.seconds.items()}
    )
    low, middle, high = harness.quartiles(per_token.ratios("trained", "made"))
    columns = {name: f"{1 / per_token.median(name):,.0f} target tokens/s" for name in sides}
    return harness.Row(config, columns, middle, (low, high), GOAL)


def main() -> int:
    """Measures, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=7)
    parser.add_argument(
        "--config", nargs="*", default=[f"configs/translation.py:model={m}" for m in MODELS]
    )
    options = parser.parse_args()
    memory.keep_freed_memory()
    busy = machine.cores_used_by_others()
    rows = [measure(config, options.rounds) for config in options.config]
    notes = [f"A turn makes {BATCHES_MADE} batches, or trains on {BATCHES_TRAINED} of them."]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
