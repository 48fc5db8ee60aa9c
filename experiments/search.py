"""Searches for hyper-parameters: many short runs, of which those that learn slowly are cut off.

  python experiments/search.py --config=configs/synthetic.py:task=reverse --out=runs/search

The space is search_space() of the config file. Optuna (make train EXTRAS=sweep) proposes points
(TPE, Bergstra et al. 2011), each a run of train.py in OUT/trial-NNNN; what it has learned so far is
its validation loss at each evaluation, and a trial that is above the median of the others at the
same step is stopped (Golovin et al. 2017), with its checkpoint. The best trial has the lowest
validation loss at any evaluation; its command is printed at the end. The final scores of a trial
are those of the validation split: the test split is not looked at.

OUT/search.db keeps it all. The same command again goes on where it stopped: trials that ended are
not run again, and the one that was in progress resumes. --config.FIELD=VALUE sets a field of all
trials. Exit codes: 0 done, 64 wrong arguments, 75 stopped, or that of a trial that failed.
"""

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import train
from errors import (
    ConfigError,
    NonFiniteError,
    Parser,
    Preempted,
    SeqlabError,
    StorageError,
    python_command,
)
from experiments.launching import local, machine, plan, space, status
from experiments.translate import whole_number
from training import config_files
from training.files import storage_errors
from training.signals import StopFlag

DATABASE = "search.db"
FINAL = "--config.final_split=validation"


class TrialFailed(SeqlabError):
    """A run ended as it would end again."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if code > 0 else 1


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    add = parser.add_argument
    add("--config", required=True, help="FILE.py:ARGUMENTS; the file has a search_space()")
    add("--out", required=True, type=Path, help="folder of the trials")
    add("--trials", type=whole_number(1), default=20, help="in all (20)")
    add("--startup", type=whole_number(1), default=5, help="trials that none is cut before (5)")
    add("--warmup", type=whole_number(0), default=0, help="steps before which none is cut (0)")
    add("--seed", type=whole_number(0), default=0, help="of the proposals (0)")
    add("--jobs", type=whole_number(1), default=1, help="trials at the same time (1)")
    add("--memory", type=float, default=2.0, metavar="GB", help="of the host for a trial (2)")
    return parser


def optuna() -> Any:
    """The package, quiet, or one line that says how to get it."""
    try:
        import optuna as package
    except ImportError as error:
        raise ConfigError(
            "A search needs Optuna: make train EXTRAS=sweep, or "
            f"{python_command('-m', 'pip', 'install', '-e', '.[sweep]')}."
        ) from error
    package.logging.set_verbosity(package.logging.WARNING)
    return package


class Search:
    """Trials and their runs; everything that a later process needs is in the database.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.optuna, self.options, self.out = optuna(), options, options.out
        self.space = space.load(options.config)
        pairs = config_files.pairs(options.overrides)
        self.fixed = [f"{config_files.PREFIX}{field}={text}" for field, text in pairs]
        for point in space.corners(self.space):
            self.check(space.overrides(point))
        self.study = self._study()
        self.active: dict[str, Any] = {}  # name of a run -> trial

    def check(self, overrides: Sequence[str]) -> dict:
        """The settings of a trial; raises ConfigError."""
        arguments = [*self.fixed, FINAL, *overrides]
        return train.check(config_files.load_config(self.options.config, arguments))

    def _study(self) -> Any:
        """The study of the folder, or a new one.

        Raises:
            ConfigError: the folder holds another search, or other things.
            StorageError: it cannot be written, or the database is damaged.
        """
        out, package = self.out, self.optuna
        with storage_errors("make a search in", out):
            found = (out / DATABASE).is_file()
            if not found and out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise ConfigError(f"--out {out} is neither empty nor a search ({DATABASE}).")
            out.mkdir(parents=True, exist_ok=True)
        study = opened(package, out / DATABASE)
        options = self.options
        # The same proposals for the same seed, and others behind those that are there.
        seed = options.seed + len(study.get_trials(deepcopy=False))
        study.sampler = package.samplers.TPESampler(seed=seed)
        study.pruner = package.pruners.MedianPruner(options.startup, options.warmup)
        what = {"config": options.config, "fixed": self.fixed, "space": repr(self.space)}
        for name, value in what.items():
            known = study.user_attrs.get(name, value)
            if known != value:
                raise ConfigError(
                    f"{out} holds a search with another {name}: {known!r}. Choose another --out."
                )
            study.set_user_attr(name, value)
        return study

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Until there are as many trials as are wanted.

        Raises:
            Preempted: a signal asked to stop.
            TrialFailed: a run failed, but not for its numbers.
        """
        self._tell_pruned()
        room = machine.places(self.options.jobs, self.options.memory, self.options.trials)
        with StopFlag() as stop, local.Pool(self.out, room) as pool:
            while not stop.requested:
                self._start(pool)
                if not self.active:
                    return
                self._report(pool)
                for run, code in pool.finished():
                    self._tell(run, code)
                time.sleep(local.POLL)
        with contextlib.suppress(SeqlabError):
            self._report(pool)  # what the last steps have brought
        raise Preempted("Stopped; the same command goes on.")

    def _tell_pruned(self) -> None:
        """Ends the trials that an earlier process had given up, but saw no end of."""
        states = self.optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING and trial.user_attrs.get("pruned"):
                self.study.tell(trial.number, state=states.PRUNED)
                say(f"trial-{trial.number:04}: pruned")

    def _start(self, pool: local.Pool) -> None:
        """Trials for the free places: first those that an earlier process has left."""
        states = self.optuna.trial.TrialState
        known = self.study.get_trials(deepcopy=False)
        left = [trial for trial in known if trial.state == states.RUNNING]
        begun = sum(trial.state != states.WAITING for trial in known)
        mine = {trial.number for trial in self.active.values()}
        while pool.free:
            if waiting := [trial for trial in left if trial.number not in mine]:
                trial = self.optuna.trial.Trial(self.study, waiting[0]._trial_id)
            elif begun < self.options.trials:
                trial = self.study.ask(space.distributions(self.space))
                begun += 1
            else:
                return
            mine.add(trial.number)
            run = self.run_of(trial.number, trial.params)
            self.active[run.name] = trial
            pool.start(run)

    def run_of(self, number: int, params: dict[str, Any]) -> plan.Run:
        """The run of a trial, always the same."""
        overrides = space.overrides(params)
        num_steps = self.check(overrides)["num_steps"]
        arguments = (*self.fixed, FINAL, *overrides)
        return plan.Run(f"trial-{number:04}", self.options.config, arguments, num_steps)

    def _report(self, pool: local.Pool) -> None:
        """Hands new validation losses to the pruner and stops what it has given up."""
        for name, trial in self.active.items():
            known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            for step, loss in losses(self.out / name):
                if step not in known:
                    trial.report(loss, step)
            if trial.user_attrs.get("pruned") is None and trial.should_prune():
                trial.set_user_attr("pruned", True)
                pool.stop(name)

    def _tell(self, run: plan.Run, code: int) -> None:
        """Keeps what came of a trial."""
        trial, states = self.active[run.name], self.optuna.trial.TrialState
        if code == 0:
            best = min((loss for _, loss in losses(run.folder(self.out))), default=None)
            self.study.tell(trial, best, state=None if best is not None else states.PRUNED)
            say(f"{run.name}: {best}" if best is not None else f"{run.name}: no finite loss")
        elif code == NonFiniteError.exit_code or (
            code == Preempted.exit_code and trial.user_attrs.get("pruned")
        ):
            self.study.tell(trial, state=states.PRUNED)
            say(f"{run.name}: {'pruned' if code == Preempted.exit_code else 'not finite'}")
        else:  # it stays in progress, and goes on with the next command
            said = status.last_line(run.log(self.out))
            raise TrialFailed(f"{run.name}: exit code {code}; {said}", code)
        del self.active[run.name]

    def best(self) -> str:
        """The best trial and its command."""
        states = self.optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        done = [trial for trial in trials if trial.state == states.COMPLETE]
        if not done:
            raise TrialFailed(f"None of {len(trials)} trials has come to an end.", 1)
        best = min(done, key=lambda trial: trial.value)
        words = [f"--config={self.options.config}", *self.fixed, *space.overrides(best.params)]
        command = python_command("train.py", "--workdir=RUN", *words)
        pruned = sum(trial.state == states.PRUNED for trial in trials)
        return (
            f"{len(trials)} trials, {pruned} of them cut off; best: trial-{best.number:04}, "
            f"validation loss {best.value:.6g}\n{command}"
        )


def opened(package: Any, path: Path) -> Any:
    """The study in a database, or a new one; raises StorageError."""
    database_errors = importlib.import_module("sqlalchemy.exc").SQLAlchemyError
    try:
        storage = package.storages.RDBStorage(f"sqlite:///{path.absolute()}")
        return package.create_study(storage=storage, study_name="search", load_if_exists=True)
    except (database_errors, package.exceptions.OptunaError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise StorageError(f"{path} cannot be used: {said} Choose another --out.") from error


def losses(folder: Path) -> list[tuple[int, float]]:
    """(step, validation loss) of a run so far, where it is finite."""
    rows = [row for row in status.rows_of(folder) if row["split"] == "validation"]
    return [(row["step"], row["loss"]) for row in rows if space.finite(row.get("loss"))]


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def search(options: argparse.Namespace) -> None:
    """Runs the trials and prints the best one."""
    if not options.memory > 0:
        raise ConfigError(f"--memory must be above 0, got {options.memory:g}.")
    found = Search(options)
    found.run()
    print(found.best())


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return make_parser().run(search, argv)


if __name__ == "__main__":
    sys.exit(main())
