"""Training steps of GPT-2 small and BERT base against Hugging Face on the CPU, float32.

  python -m benchmarks.families

Hugging Face's models run with scaled-dot-product attention and fused AdamW, without dropout, on
the same batches. Its BERT computes logits at all places of a row, as its users have it; ours
at the hidden ones alone, as the original did. Each side is a process of its own, which says the
most memory that it has held.
"""

import contextlib
import functools
import sys
from collections.abc import Callable

import jax

import models
from benchmarks import harness, machine
from benchmarks.workloads import FAMILIES, Workload

TITLE = "Training steps of GPT-2 and BERT, against Hugging Face"
PEER, KEPT = "Hugging Face", "Hugging Face, freed memory kept"


def num_parameters(workload: Workload) -> int:
    """Trained numbers of our model; nothing is computed."""
    model = models.build(workload.model, workload.vocab_size)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    return models.num_parameters(shapes["params"])


def measure(number: int, rounds: int) -> harness.Row:
    """The row of one family."""
    workload = FAMILIES[number]
    worker = functools.partial(harness.Worker, "family", workload=number)
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {
            "ours": stack.enter_context(worker(ours=True, keep_freed_memory=True)),
            PEER: stack.enter_context(worker(ours=False)),
            KEPT: stack.enter_context(worker(ours=False, keep_freed_memory=True)),
        }
        timing = harness.alternate(sides, rounds, warm_up=1, per_turn=1)
        peaks = {name: side() for name, side in sides.items()}
    what = f"{workload.title}, {num_parameters(workload):,} parameters"
    tokens = workload.num_tokens
    row = harness.compared(what, timing, PEER, "ours", tokens, "tokens", workload.goal)
    return row.with_columns(
        {name: f"{row.columns[name]}, {peak:.2f} GiB" for name, peak in peaks.items()}
    )


def main() -> int:
    """Measures all families, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=7)
    parser.add_argument("--family", default="", help="only those with this in their title")
    options = parser.parse_args()
    if not harness.has("transformers"):
        return harness.skip(TITLE, "Hugging Face's transformers")
    busy = machine.cores_used_by_others()
    numbers = [i for i, workload in enumerate(FAMILIES) if options.family in workload.title]
    rows = [measure(number, options.rounds) for number in numbers]
    notes = [
        "GiB: the most resident memory of the side's process, from its start on. Result: time of"
        " Hugging Face over ours, median of the rounds (quartiles). In one of its processes"
        " malloc keeps freed memory, as train.py has it (training/memory.py)."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
