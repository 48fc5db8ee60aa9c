"""What a run will need and cost, before anything is bought or started.

  python experiments/plan.py --config=configs/gpt.py:model=gpt2-small --devices=v5e:4x4
  python experiments/plan.py --config=configs/bert.py:model=bert-base --devices=8xH100 --tokens=3e9
  python experiments/plan.py --config=... --devices=v5p:8x8x16 --mesh=1,256,4 --largest_batch

Compiles the very train step of the config for these devices, none of which need be here, and
reads from it the memory of a chip, FLOPs, bytes and the messages between devices; beside them
stand the same by formula. TPUs (v4, v5e, v5p, v6e) have XLA's own compiler for them in the
package libtpu (the extra `plan`). For GPUs (A100, H100, H200, B200), and without libtpu, the
program is compiled for a CPU that shows itself as so many devices: its memory is of a program
that is fused otherwise. Nothing is run, and no data are read: made-up sentences stand in for
them, and the vocabulary is config.task.tokenizer.vocab_size or --vocab_size.

Other fields of the config are set as for train.py: --config.task.sequences_per_batch=256. Exit
codes: 0 done, 64 wrong config or argument.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from errors import ConfigError, Parser
from experiments.generate import above_zero
from experiments.translate import non_negative, whole_number


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    add = parser.add_argument
    add("--config", required=True, help="FILE.py:ARGUMENTS, see configs/")
    add("--devices", required=True, help="v5p:8x8x16, 256xH100, ...")
    add("--mesh", help="DATA,FSDP,TENSOR; default: config.parallel")
    add("--tokens", type=above_zero(), default=0.0, help="of the whole run, for its cost")
    add("--price", type=non_negative, default=0.0, help="of a chip-hour")
    add("--vocab_size", type=whole_number(5), default=0, help="ids of the tokenizer")
    add("--formula", action="store_true", help="compile nothing")
    add("--largest_batch", action="store_true", help="search the most rows that fit")
    add("--debug", action="store_true", help="tracebacks for all errors")
    return parser


def with_mesh(settings: dict[str, Any], mesh: str | None, count: int) -> dict[str, Any]:
    """The settings on a mesh given as DATA,FSDP,TENSOR."""
    if mesh is None:
        return settings
    parts = mesh.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise ConfigError(f"--mesh must be DATA,FSDP,TENSOR, such as 1,8,2, got {mesh!r}.")
    data, fsdp, tensor = (int(part) for part in parts)
    if data * fsdp * tensor != count:
        raise ConfigError(
            f"--mesh {mesh} has {data * fsdp * tensor:,} places for the {count:,} devices of "
            "--devices; the product must be equal."
        )
    block = {**settings["parallel"], "strategy": "mesh", "mesh": (data, fsdp, tensor)}
    return {**settings, "parallel": block}


@dataclasses.dataclass(frozen=True)
class Planner:
    """Plans one config and its variants on the same devices.

    Attributes:
        target, devices, how: of experiments/planning/targets.py.
    """

    options: argparse.Namespace
    target: Any
    devices: list
    how: str

    def __call__(self, settings: Mapping[str, Any], compiling: bool = True) -> Any:
        """The Plan of checked settings."""
        from experiments.planning import compiler, formulas, report, stand_in, targets

        given = stand_in.stand_in(settings, self.options.vocab_size)
        trainer = compiler.build(settings, given, self.devices)
        formula = formulas.by_formula(settings, given, trainer)
        few = self.how == "tpu" or self.target.num_chips <= targets.MOST_COMPILED
        compiled = None
        if compiling and few and not self.options.formula:
            compiled = compiler.compile_step(trainer, given.batch, self.target.chip.clock)
        by = {"tpu": "for this TPU", "cpu": "for a CPU in its place"}[self.how]
        block = settings["parallel"]
        mesh = "pmap"
        if block["strategy"] == "mesh":
            mesh = f"mesh (data, fsdp, tensor) {tuple(formula.mesh.values())}"
        return report.Plan(
            target=self.target,
            given=given,
            formula=formula,
            compiled=compiled,
            by=by if compiled else "for nothing",
            float32=_dtype(settings["model"]) == "float32",
            mesh=mesh,
            tokens=self.options.tokens,
            hourly=self.options.price,
        )


def _dtype(block: Mapping[str, Any]) -> str:
    return block["inner"]["dtype"] if "inner" in block else block.get("dtype", "float32")


def say(text: str) -> None:
    """Prints at once: what follows may take minutes."""
    print(text, flush=True)


def work(options: argparse.Namespace) -> None:
    """Plans what a command asks for and prints it."""
    if options.price and not options.tokens:
        raise ConfigError("--price is of a whole run: say its --tokens, too.")
    import train  # here, so that wrong arguments are named at once
    from experiments.planning import advice, report, targets
    from training import config_files

    target = targets.parse_target(options.devices)
    config = config_files.load_config(options.config, options.overrides)
    if options.mesh is not None:
        config.parallel.strategy = "mesh"
    settings = train.check(config)
    settings = with_mesh(settings, options.mesh, target.num_chips)
    targets.prepare(target)
    planner = Planner(options, target, *targets.devices_for(target))
    plan = planner(settings)
    for line in report.lines(plan):
        say(line)
    if not plan.fits:
        advice.what_to_change(settings, plan, planner, say)
    if options.largest_batch:
        advice.largest_batch(settings, plan, planner, say)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return make_parser().run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
