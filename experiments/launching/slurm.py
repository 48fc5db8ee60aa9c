"""Runs as jobs of Slurm, an array of them at a time, through submitit."""

import argparse
import contextlib
import importlib
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError, python_command
from experiments import records
from experiments.launching.plan import Run
from experiments.launching.slurm_task import Task
from experiments.launching.status import Board
from experiments.translate import whole_number

FOLDER = "slurm"  # below --out: what submitit keeps, and which job a run is
FORMAT = 1
SIGNAL = "USR1"  # what Slurm sends before the time is over: train.py saves on it
POLL = 2.0  # seconds


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of this executor."""
    add, count = group.add_argument, whole_number(1)
    add("--partition", help="default: Slurm's")
    add("--tasks", type=count, default=1, help="processes of a run on each node (1)")
    add("--cpus", type=count, default=1, help="cores of a process (1)")
    add("--gpus", type=whole_number(0), default=0, help="on each node (0)")
    add("--minutes", type=count, default=60, help="at most, until it is requeued (60)")
    add("--grace", type=count, default=120, help="seconds to save in before that (120)")
    add("--sbatch", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    add("--detach", action="store_true", help="leave once all are submitted")


def check(options: argparse.Namespace) -> None:
    """Refuses what cannot be submitted; raises ConfigError."""
    for option in options.sbatch:
        if not all(option.partition("=")[::2]):
            raise ConfigError(f"--sbatch must be NAME=VALUE, got {option!r}.")
    if options.grace >= 60 * options.minutes:
        raise ConfigError(
            f"--grace ({options.grace} seconds) must be less than --minutes ({options.minutes})."
        )
    for program in ("sbatch", "squeue", "scontrol"):
        if shutil.which(program) is None:
            raise ConfigError(
                f"--executor=slurm needs {program}, which is not here. Run it on a machine that "
                "submits to Slurm, or choose --executor=local."
            )
    submitit()


def submitit() -> Any:
    """The package, or one line that says how to get it."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = SIGNAL  # it reads this as it is imported
    os.environ["SUBMITIT_LOG_LEVEL"] = "NOCONFIG"  # or it sets up the logging of this process
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise ConfigError(
            "--executor=slurm needs submitit: make train EXTRAS=launch, or "
            f"{python_command('-m', 'pip', 'install', '-e', '.[launch]')}."
        ) from error


def execute(todo: Sequence[Run], out: Path, options: argparse.Namespace, board: Board) -> bool:
    """Submits what is not in the queue already and follows it; returns whether it left it there.

    Raises:
        KeyboardInterrupt: jobs go on.
    """
    known = (records.read(out / FOLDER / "jobs.json", FORMAT, "jobs") or {"jobs": {}})["jobs"]
    waiting = queue([known[run.name] for run in todo if run.name in known])
    new = [run for run in todo if known.get(run.name) not in waiting]
    if new:
        known |= submit(new, out, options)
        records.write(out / FOLDER / "jobs.json", {"format": FORMAT, "jobs": known})
    mine = [known[run.name] for run in todo]
    print(
        f"{len(new)} jobs submitted: {', '.join(known[run.name] for run in new)}", file=sys.stderr
    )
    if options.detach:
        return True
    try:
        while queue(mine):
            board.refresh()
            time.sleep(POLL)
    except KeyboardInterrupt:
        print(f"The jobs go on; to end them: scancel {' '.join(mine)}", file=sys.stderr)
        raise
    return False


def submit(runs: Sequence[Run], out: Path, options: argparse.Namespace) -> dict[str, str]:
    """Submits an array of jobs; returns the job of each run.

    Raises:
        ConfigError: Slurm refuses.
    """
    package = submitit()
    several = options.nodes * options.tasks > 1
    tasks = []
    for run in runs:
        log = run.log(out).absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        extra = ["--coordinator=auto"] if several else []
        folder, state = run.folder(out).absolute(), out.absolute() / FOLDER / f"{run.name}.json"
        command = [*run.command(out.absolute()), *extra]
        tasks.append(Task(command, str(log), str(folder), str(state)))
    with warnings.catch_warnings():  # that there is no sacct, or no cluster of its own plugins
        warnings.simplefilter("ignore")
        executor = package.SlurmExecutor(folder=(out / FOLDER).absolute(), python=sys.executable)
        executor.update_parameters(**parameters(options, out, len(runs)))
        try:
            jobs = executor.map_array(Task.__call__, tasks)
        except package.core.utils.FailedJobError as error:
            said = [line for line in str(error).splitlines() if "sbatch: error" in line]
            reason = " ".join(said or str(error).splitlines()[-1:])
            raise ConfigError(f"Slurm refuses: {reason[:300]}") from error
    return {run.name: job.job_id for run, job in zip(runs, jobs, strict=True)}


def parameters(options: argparse.Namespace, out: Path, num_runs: int) -> dict[str, Any]:
    """What submitit asks Slurm for."""
    others = dict(option.partition("=")[::2] for option in options.sbatch)
    found = {
        "job_name": f"seqlab-{out.absolute().name}",
        "partition": options.partition,
        "time": options.minutes,
        "nodes": options.nodes,
        "ntasks_per_node": options.tasks,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "signal_delay_s": options.grace,
        "array_parallelism": options.jobs or num_runs,
        "additional_parameters": {"requeue": True, **others},
    }
    return {name: value for name, value in found.items() if value is not None}


def queue(jobs: Sequence[str]) -> set[str]:
    """Those of the jobs that are not at their end."""
    if not jobs:
        return set()
    arrays = ",".join({job.partition("_")[0] for job in jobs})
    command = ["squeue", f"--jobs={arrays}", "--array", "--noheader", "--format=%i"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode and "Invalid job id" not in found.stderr:
        with contextlib.suppress(IndexError):
            print(f"squeue: {found.stderr.splitlines()[0]}", file=sys.stderr)
        return set(jobs)  # it may answer the next time
    return set(jobs) & set(found.stdout.split())
