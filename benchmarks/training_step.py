"""Training steps against PyTorch on the CPU, float32.

  python -m benchmarks.training_step

The peers (benchmarks/peers) are written as a competent PyTorch user would: fused
scaled-dot-product attention, fused AdamW, one product for queries, keys and values,
nn.LSTM and nn.LSTMCell. tests/test_benchmarks_peers.py holds that the same weights give the same
loss on both sides.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable

from benchmarks import harness, machine, ours
from benchmarks.workloads import ON_CPU
from training import memory

TITLE = "Training step on the CPU, against PyTorch"
DROPOUT_RATES = (0.0, 0.1)


def measure(number: int, dropout_rate: float, options: argparse.Namespace) -> harness.Row:
    """The row of one workload; only without dropout it has a goal."""
    workload = ON_CPU[number].changed(dropout_rate=dropout_rate)
    step = ours.train_step(workload)
    peer = functools.partial(harness.Worker, "training", workload=number, dropout_rate=dropout_rate)
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], object]] = {"ours": step}
        sides["PyTorch"] = stack.enter_context(peer())
        sides["PyTorch, freed memory kept"] = stack.enter_context(peer(keep_freed_memory=True))
        if options.compiled:
            sides["PyTorch, compiled"] = stack.enter_context(peer(compiled=True))
        timing = harness.alternate(sides, options.rounds)
    what = f"{workload.title}, dropout {dropout_rate:g}, {step.num_parameters:,} parameters"
    goal = workload.goal if dropout_rate == 0 else None
    return harness.compared(what, timing, "PyTorch", "ours", workload.num_tokens, "tokens", goal)


def main() -> int:
    """Measures all workloads, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=15)
    parser.add_argument("--workload", default="", help="only those with this in their title")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also against torch.compile (needs a C++ compiler; minutes)",
    )
    options = parser.parse_args()
    if not harness.has("torch"):
        return harness.skip(TITLE)
    memory.keep_freed_memory()
    busy = machine.cores_used_by_others()
    rows = [
        measure(number, dropout_rate, options)
        for number, workload in enumerate(ON_CPU)
        for dropout_rate in DROPOUT_RATES
        if options.workload in workload.title
    ]
    notes = [
        "tokens/s counts both sides of a pair. Result: time of PyTorch over ours, median of the"
        " rounds (quartiles). Each PyTorch is a process of its own; in one of them malloc keeps"
        " freed memory, as train.py has it (training/memory.py). Both sides have the same"
        " parameters, but for the LSTM's second bias in each of PyTorch's three cells."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
