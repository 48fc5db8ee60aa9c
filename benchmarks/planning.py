"""A plan's formulas against what XLA's compilers count in the very same step.

  python -m benchmarks.planning
  python -m benchmarks.planning --devices=4xH100    without libtpu: compiled for a CPU

No speed is measured: a busy machine changes nothing. One layer is compiled for all
(scan_layers), which tests hold to be the same model.
"""

import sys
from typing import NamedTuple

from benchmarks import harness, machine

TITLE = "Plans: formulas against the compiler"
SHARED = ("--config.model.dtype=bfloat16", "--config.model.scan_layers=true")
ROWS = "--config.task.sequences_per_batch=32"
MODELS = {
    "GPT-2 small, T 1024": (
        "configs/gpt.py:model=gpt2-small",
        "--config.task.sequence_length=1024",
        "--config.task.tokenizer.vocab_size=50257",
    ),
    "BERT base, T 512": (
        "configs/bert.py:model=bert-base",
        "--config.task.sequence_length=512",
        "--config.task.tokenizer.vocab_size=30519",
    ),
    "T5 small, S 512": (
        "configs/t5.py:model=t5-small",
        "--config.task.sequence_length=512",
        "--config.task.tokenizer.vocab_size=32028",
    ),
}
MESHES = {"pmap": None, "fsdp 4": "1,4,1"}
WHY = {
    "FLOPs of products": "of GPT-2 under pmap the program has two products more of the size of the "
    "output layer's three: XLA makes the logits of a chunk again where they are read",
    "bytes within the step": "the formula counts each array that the backward pass reads, once; "
    "XLA computes elementwise ones again, pads others to its tiles, and holds buffers besides",
    "bytes sent": "the partitioner chooses: it may gather parameters once for both passes, sum "
    "a gradient whole where it could scatter it, or send activations instead",
}


class Figure(NamedTuple):
    """One quantity of a device, by formula and by the compiler."""

    formula: float
    compiler: float

    @property
    def ratio(self) -> float:
        return self.formula / self.compiler if self.compiler else float("nan")


def figures(arguments: tuple[str, ...], devices: str, mesh: str | None) -> dict[str, Figure]:
    """The quantities of a config's step."""
    import train
    from experiments import plan
    from experiments.planning import compiler, targets
    from training import config_files

    target = targets.parse_target(devices)
    options = plan.make_parser().read([f"--config={arguments[0]}", f"--devices={devices}"])
    targets.prepare(target)
    planner = plan.Planner(options, target, *targets.devices_for(target))
    settings = train.check(config_files.load_config(arguments[0], [*SHARED, ROWS, *arguments[1:]]))
    found = planner(plan.with_mesh(settings, mesh, target.num_chips))
    formula, compiled, count = found.formula, found.compiled, target.num_chips
    if not isinstance(compiled, compiler.Compiled) or compiled.program is None:
        return {"memory": Figure(formula.memory, compiled.memory)}
    sent = sum(one.sent for one in compiled.program.collectives)
    step = formula.gradients + formula.activations
    return {
        "FLOPs of products": Figure(formula.model_flops / count, compiled.program.flops),
        "bytes of the state": Figure(sum(formula.state.values()), compiled.arguments),
        "bytes within the step": Figure(step, compiled.temporary),
        "bytes sent": Figure(formula.sent, sent),
    }


def main() -> int:
    """Prints the table and keeps it."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--devices", default="v5e:2x2", help="as for experiments/plan.py")
    options = parser.parse_args()
    busy, rows, wrong = machine.cores_used_by_others(), [], set()
    for model, arguments in MODELS.items():
        for name, mesh in MESHES.items():
            for what, figure in figures(arguments, options.devices, mesh).items():
                agree = abs(figure.ratio - 1) <= 0.1
                wrong |= set() if agree else {what}
                columns = {
                    "formula": f"{figure.formula:.4g}",
                    "compiler": f"{figure.compiler:.4g}",
                    "within 10 %": "yes" if agree else "no",
                }
                rows.append(harness.Row(f"{model}, {name}: {what}", columns, figure.ratio))
                print(rows[-1].cells(), flush=True)
    notes = [f"{what}: {WHY.get(what, 'not explained')}." for what in sorted(wrong)]
    notes.insert(0, f"Figures of one of the chips of {options.devices}, a step of 32 rows.")
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
