"""What the norms of each layer and the search for signs of sick training cost.

  python -m benchmarks.diagnostics

All are the training step of train.py. One of them also measures gradients layer by layer and looks
at every step, and at updates and weights every hundredth, as configs/base.py has it; another
measures all of it at every step, as with config.diagnose_every=1.
"""

import sys
from collections.abc import Callable

import jax

from benchmarks import harness, machine, ours
from benchmarks.workloads import ON_CPU, Workload
from training import memory
from training.layer_norms import layer_names
from training.watch import Watch

TITLE = "Diagnostics of training"
GOAL = 1.03
EVERY = 100  # configs/base.py


class Watched:
    """A training step whose record is looked at; calling it makes one update."""

    def __init__(self, workload: Workload, every: int) -> None:
        self.step = ours.train_step(workload, diagnose_every=every)
        self.watch, self.done = Watch(layer_names(self.step.state.params), every), 0

    def __call__(self) -> None:
        self.step()
        self.done += 1
        self.watch.add(self.done, jax.device_get(self.step.record))


def measure(workload: Workload, rounds: int) -> harness.Row:
    """The row of one workload: time with over time without."""
    plain = ours.train_step(workload)
    sides: dict[str, Callable[[], object]] = {"without": plain}
    sides |= {"with": Watched(workload, EVERY), "at every step": Watched(workload, 1)}
    timing = harness.alternate(sides, rounds)
    low, middle, high = harness.quartiles(timing.ratios("with", "without"))
    columns = {name: f"{1e3 * timing.median(name):.1f} ms" for name in sides}
    what = f"{workload.title}, {plain.num_parameters:,} parameters"
    return harness.Row(what, columns, middle, (low, high), GOAL, at_most=True)


def main() -> int:
    """Measures all workloads, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=15)
    parser.add_argument("--workload", default="", help="only those with this in their title")
    options = parser.parse_args()
    memory.keep_freed_memory()
    busy = machine.cores_used_by_others()
    chosen = [workload for workload in ON_CPU if options.workload in workload.title]
    rows = [measure(workload, options.rounds) for workload in chosen]
    notes = ["Result: time of a step with diagnostics over that without, median of the rounds."]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
