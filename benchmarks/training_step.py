"""Training steps against PyTorch on the CPU, float32.

  python -m benchmarks.training_step

The peers (benchmarks/peers) are written as a competent PyTorch user would: fused
scaled-dot-product attention, fused AdamW, one product for queries, keys and values,
nn.LSTM and nn.LSTMCell. tests/test_benchmarks.py holds that the same weights give the same
loss on both sides.
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks import harness, machine, ours
from benchmarks.workloads import ON_CPU, Workload

TITLE = "Training step on the CPU, against PyTorch"
DROPOUT_RATES = (0.0, 0.1)


def measure(workload: Workload, options: argparse.Namespace) -> list[harness.Row]:
    """Rows of one workload; the goal stands in the one without dropout."""
    import torch

    from benchmarks.peers import build
    from benchmarks.peers.training import num_parameters

    rows = []
    for rate in DROPOUT_RATES:
        changed = workload.changed(dropout_rate=rate)
        step, peer = ours.train_step(changed), build.model_for(changed)
        counts = {"parameters": f"{step.num_parameters:,} / {num_parameters(peer):,}"}
        sides: dict[str, Callable[[], object]] = {
            "ours": step,
            "PyTorch": build.step_for(changed, peer),
        }
        if options.compiled:
            torch._dynamo.reset()
            sides["PyTorch compiled"] = build.step_for(changed, torch.compile(peer))
        timing = harness.alternate(sides, options.rounds, clock=harness.clock(options))
        for name in list(sides)[1:]:
            goal = workload.goal if rate == 0.0 and name == "PyTorch" else None
            what = f"{workload.title}, dropout {rate:g}"
            row = harness.compared(what, timing, name, "ours", changed.num_tokens, "tokens", goal)
            rows.append(row.with_columns(counts))
    return rows


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
    busy = machine.cores_used_by_others()
    rows = []
    for workload in ON_CPU:
        if options.workload in workload.title:
            rows += measure(workload, options)
    notes = [
        "tokens/s counts both sides of a pair. Result: time of PyTorch over ours, median of the"
        " rounds (quartiles). Parameters: ours / PyTorch; the LSTM of PyTorch has a second bias"
        " in each of its three cells, which adds nothing to what it can compute."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
