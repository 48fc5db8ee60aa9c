"""Removing every head of a Transformer in turn, against a process or a program for each head.

  python -m benchmarks.heads

A 6+6-layer encoder-decoder with 8 heads a layer has 144 heads. Ours: one program in which the mask
is data, compiled within the time that is measured. The others are measured on a few heads and
multiplied: a new process for each head (its compiled program is read from a cache, as in every
run), and a loop in one process over programs that have the mask as a constant.
"""

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import models
from analysis.heads import Ablation, Heads
from benchmarks import harness, machine
from benchmarks.ours import FixedTask
from benchmarks.workloads import Workload, transformer_seq2seq
from training import compilation, memory

TITLE = "Ablating all heads of a Transformer"
WORKLOAD = Workload(
    "loss of 16 sentences of 24 + 24 tokens without each head, d 256, 6+6 layers, 8 heads",
    transformer_seq2seq(256, 8, 6),
    vocab_size=2000,
    rows=16,
    source_length=24,
    target_length=24,
)
GOALS = {"a process a head": 20.0, "a compiled program a head": 4.0}


class Job:
    """The model, what is to be removed, and the batch, the same on every side."""

    def __init__(self) -> None:
        self.model = models.build(WORKLOAD.model, WORKLOAD.vocab_size)
        self.variables = models.init(self.model, jax.random.key(0))
        self.heads = Heads(self.model, self.variables)
        self.task, self.batch = FixedTask(WORKLOAD), WORKLOAD.batch()
        ones = np.ones((1, len(self.heads)), np.float32)
        self.masks_MX = np.concatenate([ones, self.heads.without_each()])

    def all_at_once(self) -> np.ndarray:
        """Summed loss of the batch with all heads and without each."""
        ablation = Ablation(self.task, self.model, self.variables, self.heads)
        return ablation(self.masks_MX, self.batch).sum(1)

    def with_constant(self, m: int) -> float:
        """The same for mask m, in a program of its own."""

        @jax.jit
        def loss(variables: Any, batch: dict) -> Any:
            masked = self.heads.masked(variables, self.masks_MX[m])
            return self.task.token_losses(self.model, masked, batch)[0].sum()

        return float(loss(self.variables, self.batch))

    def with_argument(self, m: int) -> float:
        """The same for mask m, in a program that is one for all masks."""

        @jax.jit
        def loss(variables: Any, batch: dict, mask_X: Any) -> Any:
            masked = self.heads.masked(variables, mask_X)
            return self.task.token_losses(self.model, masked, batch)[0].sum()

        return float(loss(self.variables, self.batch, self.masks_MX[m]))


def in_new_process(cache: str, m: int) -> float:
    """The loss under mask m, from a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.heads", f"--one={m}", f"--cache={cache}"]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def measure(num_measured: int) -> list[harness.Row]:
    """A row for each peer, from so many of its heads."""
    job = Job()
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory() as cache:
        in_new_process(cache, 0)  # fills the cache
        sides: dict[str, Callable[[int], float]] = {
            "a process a head": functools.partial(in_new_process, cache),
            "a compiled program a head": job.with_constant,
        }
        seconds: dict[str, list[float]] = {name: [] for name in ["ours", *sides]}
        for m in range(1, num_measured + 1):
            for name, side in sides.items():
                taken, loss = timed(functools.partial(side, m))
                seconds[name].append(taken)
                jax.clear_caches()
                if name == "a process a head":
                    ours, losses = timed(job.all_at_once)
                    seconds["ours"].append(ours / len(job.heads))
                    jax.clear_caches()
                assert abs(loss - losses[m]) < 1e-5 * abs(loss), "the sides computed other things"
    for name in sides:
        timing = harness.Timing(seconds)
        low, middle, high = harness.quartiles(timing.ratios(name, "ours"))
        columns = {
            "ours": f"{timing.median('ours'):.3f} s a head",
            "other": f"{name}: {timing.median(name):.2f} s",
        }
        rows.append(harness.Row(WORKLOAD.title, columns, middle, (low, high), GOALS[name]))
    return rows


def main() -> int:
    """Measures, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--one", type=int, help="print the loss under this mask and end")
    parser.add_argument("--cache", help="folder of compiled programs, for --one")
    options = parser.parse_args()
    memory.keep_freed_memory()
    if options.one is not None:
        compilation.keep_compiled(options.cache)
        print(Job().with_argument(options.one))
        return 0
    busy = machine.cores_used_by_others()
    rows = measure(options.rounds)
    notes = [
        f"The others are extrapolated from {options.rounds} of 144 heads, each compared with one "
        "ablation of all heads right after it, compilation included on every side."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
