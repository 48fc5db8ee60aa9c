"""What a checkpoint costs the training that it interrupts.

  python -m benchmarks.saving

Training waits while its state is copied to the host; what follows (digests, files, the manifest)
is done by other threads beside the next steps. The stall is what the copy takes of a step, and
what it comes to where every 200th step saves, as configs/base.py has it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

from benchmarks import harness, machine, ours
from benchmarks.workloads import ON_CPU, Workload
from training import memory
from training.checkpoints import Checkpointer

TITLE = "Saving beside training"
GOAL = 0.05
EVERY = 200  # configs/base.py


def measure(workload: Workload, rounds: int) -> harness.Row:
    """The row of one workload: the stall over the time of the steps between two saves."""
    step = ours.train_step(workload)
    seconds: dict[str, list[float]] = {"step": [], "stall": [], "written": []}
    with tempfile.TemporaryDirectory() as folder, Checkpointer(Path(folder), 2, {}) as saver:
        for number in range(rounds + 2):
            step()
            begin = time.perf_counter()
            step()
            jax.block_until_ready(step.state)
            stepped = time.perf_counter()
            saver.save(number, step.state, {})
            stalled = time.perf_counter()
            saver.wait()
            if number >= 2:
                seconds["step"].append(stepped - begin)
                seconds["stall"].append(stalled - stepped)
                seconds["written"].append(time.perf_counter() - stepped)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    columns = {
        "step": f"{1e3 * middle['step']:.1f} ms",
        "stall of a save": f"{1e3 * middle['stall']:.1f} ms",
        "of a step": f"{middle['stall'] / middle['step']:.1%}",
        "good after": f"{1e3 * middle['written']:.0f} ms",
    }
    share = middle["stall"] / (EVERY * middle["step"])
    what = f"{workload.title}, {step.num_parameters:,} parameters"
    return harness.Row(what, columns, 100 * share, None, 100 * GOAL, at_most=True, unit=" %")


def main() -> int:
    """Measures all workloads, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=9)
    parser.add_argument("--workload", default="", help="only those with this in their title")
    options = parser.parse_args()
    memory.keep_freed_memory()
    busy = machine.cores_used_by_others()
    chosen = [workload for workload in ON_CPU if options.workload in workload.title]
    rows = [measure(workload, options.rounds) for workload in chosen]
    notes = [f"Result: the share of training that saves take where every {EVERY}th step saves."]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
