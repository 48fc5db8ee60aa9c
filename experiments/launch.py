"""Runs many configs: here, on Slurm, or on Kubernetes.

  python experiments/launch.py --config=configs/synthetic.py --sweep --out=runs/sweep
  python experiments/launch.py --config=configs/gpt.py --grid optimizer.learning_rate=1e-3,3e-4 \\
    --grid seed=0,1,2 --out=runs/rates
  python experiments/launch.py --out=runs/sweep --resume     # what is not done goes on
  python experiments/launch.py --out=runs/sweep --status     # a table of the runs

Runs every --config (with --sweep: every string of its sweep()) at every point of the product of
the --grid, each into a folder of its own below --out, whose name follows from its string and
fields; what it says is in OUT/logs. --config.FIELD=VALUE sets a field of all runs. Everything is
checked before the first run starts.

Exit codes: 0 all runs are done (or handed over: --detach, kubernetes), 1 some have failed, 64
wrong arguments, 74 disk, 75 stopped: go on with --resume.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import registry
from errors import ConfigError, Parser, Preempted, SeqlabError, python_command
from experiments.launching import kubernetes, local, plan, slurm, status
from experiments.translate import whole_number
from training import config_files

EXECUTORS: dict[str, ModuleType] = {
    "local": local,  # processes of this machine, as many as devices and memory allow
    "slurm": slurm,  # job arrays through submitit, put back in the queue when they are preempted
    "kubernetes": kubernetes,  # manifests for JobSet and Kueue, to be applied with kubectl
}


class RunsFailed(SeqlabError):
    """Some runs have failed; the others are done."""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    add = parser.add_argument
    add("--config", action="append", default=[], help="FILE.py:ARGUMENTS; may be repeated")
    add("--out", required=True, type=Path, help="folder of the runs")
    add("--sweep", action="store_true", help="every string of the sweep() of each config")
    add("--grid", action="append", default=[], metavar="FIELD=VALUE,...", help="may be repeated")
    add("--executor", default="local", help="local (default), slurm or kubernetes")
    add("--jobs", type=whole_number(1), help="runs at the same time")
    add("--nodes", type=whole_number(1), default=1, help="machines of a run (1)")
    add("--resume", action="store_true", help="skip what is done, continue what is not")
    add("--status", action="store_true", help="print the table of --out and leave")
    add("--dry_run", action="store_true", help="print runs and commands, write nothing")
    for name, module in EXECUTORS.items():
        module.add_arguments(parser.add_argument_group(f"--executor={name}"))
    return parser


def executor_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> ModuleType:
    """The module that executes; raises ConfigError for options of another one."""
    if options.executor not in EXECUTORS:
        raise ConfigError(f"--executor: {registry.unknown('value', options.executor, EXECUTORS)}")
    for group in parser._action_groups:
        title = group.title or ""
        if title.startswith("--executor=") and title != f"--executor={options.executor}":
            for action in group._group_actions:
                if getattr(options, action.dest) != action.default:
                    raise ConfigError(f"{action.option_strings[0]} needs {title}.")
    return EXECUTORS[options.executor]


def planned(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[plan.Run]:
    """All runs of --out, those that the command line asks for among them."""
    known = [name for action in parser._actions for name in action.option_strings]
    config_files.pairs(options.overrides, [*known, "--config.FIELD=VALUE"])
    if (options.grid or options.sweep or options.overrides) and not options.config:
        raise ConfigError("--grid, --sweep and --config.FIELD=VALUE need --config.")
    wanted = plan.make(options.config, options.overrides, options.grid, options.sweep)
    if not wanted and not options.resume:
        raise ConfigError("Nothing to run: give --config, or --resume for the runs of --out.")
    runs = plan.joined(options.out, wanted, options.resume or options.dry_run)
    if not runs:
        raise ConfigError(f"{options.out} holds no launch (no {plan.FILE}): give --config.")
    return runs


def how(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What --resume shall know of how the runs are executed."""
    names = {"executor", "jobs", "nodes"}
    for group in parser._action_groups:
        if group.title == f"--executor={options.executor}":
            names |= {action.dest for action in group._group_actions} - {"detach"}
    return {name: getattr(options, name) for name in sorted(names)}


def completed(
    options: argparse.Namespace, parser: Parser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """The command line, which for --resume goes on as before in all that it does not say."""
    if not options.resume:
        return options
    kept = plan.read_options(options.out)
    parser.set_defaults(executor=kept.get("executor", options.executor))
    options = parser.read(argv)
    if options.executor == kept.get("executor"):
        parser.set_defaults(**kept)
    return parser.read(argv)


def launch(options: argparse.Namespace, parser: Parser, argv: Sequence[str] | None = None) -> None:
    """Does what the command line asks for."""
    options = completed(options, parser, argv)
    executor, out = executor_of(options, parser), options.out
    if options.status:
        runs = plan.read(out)
        if not runs:
            raise ConfigError(f"{out} holds no launch (no {plan.FILE}).")
        status.show([status.row_of(run, out) for run in runs], sys.stdout)
        return
    runs = planned(options, parser)
    todo = [run for run in runs if status.row_of(run, out).state != status.DONE]
    if options.dry_run:
        for run in todo:
            print(python_command("train.py", *run.arguments(out)))
        print(f"{len(todo)} runs to do, {len(runs) - len(todo)} done; nothing was started.")
        return
    executor.check(options)
    plan.write(out, runs, how(options, parser))

    def rows() -> list[status.Row]:
        return [status.row_of(run, out) for run in runs]

    try:
        with status.Board(rows) as board:
            handed_over = todo and executor.execute(todo, out, options, board)
    except (Preempted, KeyboardInterrupt) as error:
        raise Preempted(f"{_counts(rows())}. Go on: {again(options)}") from error
    if not handed_over:
        report(rows(), out)


def again(options: argparse.Namespace) -> str:
    """The command that goes on."""
    return python_command("experiments/launch.py", f"--out={options.out}", "--resume")


def _counts(rows: Sequence[status.Row]) -> str:
    done = sum(row.state == status.DONE for row in rows)
    return f"{done} of {len(rows)} runs are done"


def report(rows: Sequence[status.Row], out: Path) -> None:
    """Says what came of the runs.

    Raises:
        RunsFailed: some are not done; it names them.
    """
    status.show(rows, sys.stdout)
    others = [row for row in rows if row.state != status.DONE]
    if others:
        named = "; ".join(f"{r.name} ({r.state}{': ' * bool(r.note)}{r.note})" for r in others)
        raise RunsFailed(f"{_counts(rows)}, not: {named}. See {out / plan.LOGS}.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser()
    return parser.run(lambda options: launch(options, parser, argv), argv)


if __name__ == "__main__":
    sys.exit(main())
