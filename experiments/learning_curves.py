"""Which architecture learns faster? Learning curves of several configs over seeds, in one report.

  python experiments/learning_curves.py --out=runs/comparison --seeds=3 --match=params \\
    --config=configs/hidden_markov.py:model=lm-lstm-tiny \\
    --config=configs/hidden_markov.py:model=lm-transformer-tiny
  python experiments/learning_curves.py runs/lstm runs/transformer --out=runs/report

The first trains every config with every seed below --out and then writes the report; the same
command again goes on where it stopped, and runs that are done are not run again. The second
writes the report on runs that are there; those that differ in their seed alone are one curve.
--config.FIELD=VALUE sets a field of all configs.

--match says what the configs shall have in common, to 2 %: params (non-embedding parameters: the
widths of all but the first config are chosen), tokens, flops or walltime (their steps are
chosen; seconds per step are measured before). Budgets that differ are refused, unless
--allow_unmatched labels them, or --cut compares all at the largest common one.

Writes report.html (no network needed), curves.png, tokens.png, points.csv and numbers.json.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from analysis.budgets import MATCHES
from errors import ConfigError, Parser
from experiments.comparison import page, pictures, plan, runs
from experiments.comparison.numbers import collect
from experiments.comparison.plan import say
from training import cores
from training.memory import keep_freed_memory


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    parser.add_argument("runs", nargs="*", help="finished run directories, instead of --config")
    parser.add_argument("--config", action="append", default=[], help="FILE.py:ARGUMENTS; repeat")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs and the report")
    parser.add_argument("--seeds", default="3", help="how many, or which: 0,1,7")
    parser.add_argument("--match", choices=[*MATCHES, "none"], help="default: tokens; runs: none")
    parser.add_argument("--cut", action="store_true", help="compare at the common budget")
    parser.add_argument("--allow_unmatched", action="store_true", help="label, don't refuse")
    parser.add_argument("--target", type=float, help="loss to reach, nats per token")
    parser.add_argument("--warmup_steps", type=int, default=20, help="measured, for walltime")
    parser.add_argument("--report_only", action="store_true", help="train nothing")
    return parser


def check(options: Namespace) -> None:
    """Refuses arguments that do not go together."""
    if options.runs and (options.config or options.overrides or options.report_only):
        raise ConfigError("Give run directories, or --config and --report_only: not both.")
    if not options.runs and not options.config and not options.report_only:
        raise ConfigError("Nothing to compare: give --config (twice or more), or run directories.")
    if options.warmup_steps < 1:
        raise ConfigError(f"--warmup_steps must be at least 1, got {options.warmup_steps}.")


def seeds_of(text: str) -> list[int]:
    """'3' is 0,1,2; '4,7' is itself."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or text.strip() == "0":
        raise ConfigError(f"--seeds must be a number of seeds or a list of them, got {text!r}.")
    found = [int(part) for part in parts]
    found = list(range(found[0])) if len(found) == 1 else found
    if len(set(found)) < len(found):
        raise ConfigError(f"--seeds has a seed twice: {text}.")
    return found


def planned(options: Namespace) -> dict:
    """The plan that --out holds, or a new one.

    Raises:
        ConfigError: --out holds that of another command.
    """
    known = plan.read(options.out)
    if options.report_only and known is None:
        raise ConfigError(f"--report_only: {options.out} holds no comparison (no {plan.FILE}).")
    if known is None:
        match = options.match or "tokens"
        known = plan.make(
            options.config, options.overrides, seeds_of(options.seeds), match, options.warmup_steps
        )
        plan.write(options.out, known)
    elif options.config:
        seeds, match = seeds_of(options.seeds), options.match or "tokens"
        wanted = plan.arguments(options.config, options.overrides, seeds, match)
        differs = [name for name in wanted if wanted[name] != known["arguments"][name]]
        if differs:
            raise ConfigError(
                f"{options.out} holds another comparison ({', '.join(differs)} differ from its "
                f"{plan.FILE}). Choose another --out."
            )
    return known


def compare(options: Namespace) -> None:
    """Trains what is to be trained and writes the report."""
    check(options)
    keep_freed_memory()
    cores.split()
    match, cut, measured = options.match or "none", options.cut, {}
    if options.runs:
        groups = runs.given(options.runs)
    else:
        found = planned(options)
        if not options.report_only:
            plan.train_all(list(plan.run_folders(options.out, found)))
        groups = runs.planned(options.out, found)
        match, measured = found["match"], found["measured_seconds_per_step"]
        cut = cut or match == "walltime"  # measured times are never the same to 2 %
    runs.check_comparable(groups)
    numbers = collect(
        groups,
        match,
        cut=cut,
        allow_unmatched=options.allow_unmatched,
        target=options.target,
        measured=measured,
        say=say,
    )
    page.write_tables(options.out, numbers)
    path = page.write_page(options.out, numbers, pictures.draw_all(options.out, numbers))
    print(f"report: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return make_parser().run(compare, argv)


if __name__ == "__main__":
    sys.exit(main())
