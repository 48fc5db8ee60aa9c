"""The runs that a command line asks for: checked and named before the first one starts."""

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import train
from errors import ConfigError
from experiments import records
from training import config_files

FILE = "launch.json"
FORMAT = 1
LOGS = "logs"
PROGRAM = Path(train.__file__).absolute()
MAX_NAME = 100  # with the digest; a folder's name may be 255 long


class Run(NamedTuple):
    """One run of train.py.

    Attributes:
        name: of its folder and its log.
        config: argument of --config.
        overrides: further arguments, "--config.FIELD=VALUE".
        num_steps: how many it shall do.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    num_steps: int

    @property
    def digest(self) -> str:
        """What tells it from the others: the end of its name."""
        return self.name.rpartition("-")[2]

    def folder(self, out: Path) -> Path:
        """Its run directory."""
        return out / self.name

    def log(self, out: Path) -> Path:
        """What it says; beside the run directories, which hold nothing but runs."""
        return out / LOGS / f"{self.name}.log"

    def arguments(self, out: Path) -> list[str]:
        """The arguments of train.py."""
        return [f"--config={self.config}", f"--workdir={self.folder(out)}", *self.overrides]

    def command(self, out: Path) -> list[str]:
        """The command that runs it here."""
        return [sys.executable, str(PROGRAM), *self.arguments(out)]


def make(
    configs: Sequence[str],
    overrides: Sequence[str] = (),
    grid: Sequence[str] = (),
    sweep: bool = False,
) -> list[Run]:
    """Every config with every point of the grid, each of them checked.

    A field is given once: as one of `overrides`, or in one grid.

    Args:
        configs: arguments of --config.
        overrides: "--config.FIELD=VALUE", or its two halves, for all runs.
        grid: "FIELD=VALUE,VALUE,..."; the runs are those of the product.
        sweep: whether each config stands for the strings of its sweep().

    Raises:
        ConfigError: a string, a field or a value is wrong, or one field or run is asked for
            twice.
    """
    if sweep:
        configs = [string for config in configs for string in config_files.load_sweep(config)]
    given, axes = config_files.pairs(overrides), [axis(text) for text in grid]
    refuse_twice([*(name for name, _ in given), *(values[0][0] for values in axes)])
    fixed = [f"{config_files.PREFIX}{name}={text}" for name, text in given]
    runs: dict[str, Run] = {}
    for config in configs:
        for point in itertools.product(*axes):
            run = checked(config, fixed, point)
            if run.digest in runs:
                raise ConfigError(f"{config} stands there twice{_at(point)}.")
            runs[run.digest] = run
    return list(runs.values())


def refuse_twice(fields: Sequence[str]) -> None:
    """Raises ConfigError where two of the fields are the same, or one is a part of the other."""
    for one, other in itertools.combinations(sorted(fields), 2):
        if f"{other}.".startswith(f"{one}."):
            raise ConfigError(
                f"config.{one} is given twice, by --grid or --config.FIELD=VALUE"
                f"{f' (once as {other})' if other != one else ''}."
            )


def checked(config: str, fixed: Sequence[str], point: Sequence[tuple[str, str]]) -> Run:
    """A run at a point of the grid; raises ConfigError, naming the string."""
    overrides = (*fixed, *(f"{config_files.PREFIX}{name}={text}" for name, text in point))
    try:
        settings = train.check(config_files.load_config(config, overrides))
    except ConfigError as error:
        raise ConfigError(f"{config}{_at(point)}: {error}") from error
    return Run(name_of(config, overrides, point), config, overrides, settings["num_steps"])


def _at(point: Sequence[tuple[str, str]]) -> str:
    return f" with {', '.join('='.join(pair) for pair in point)}" if point else ""


def axis(text: str) -> list[tuple[str, str]]:
    """(field, value) of each value of "FIELD=VALUE,VALUE,..."; commas in brackets divide none.

    Raises:
        ConfigError: no field, an empty value, or one that stands there twice.
    """
    field, _, values = text.partition("=")
    found, depth = [""], 0
    for letter in values:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    if not field or not all(found) or len(set(found)) < len(found):
        raise ConfigError(f"--grid must be FIELD=VALUE,VALUE,... with different values: {text!r}.")
    return [(field.removeprefix("config."), value) for value in found]


def name_of(config: str, overrides: Sequence[str], point: Sequence[tuple[str, str]] = ()) -> str:
    """The same folder for the same run, always: its words, and a digest of all that it is.

    In whatever order the fields were given.
    """
    file, _, argument = config.partition(":")
    words = [Path(file).stem, argument]
    words += [f"{field.rpartition('.')[2]}={value}" for field, value in sorted(point)]
    plain = re.sub(r"[^A-Za-z0-9=._-]+", "-", "-".join(filter(None, words)))
    digest = hashlib.sha256(json.dumps([config, sorted(overrides)]).encode()).hexdigest()[:8]
    return f"{plain[: MAX_NAME - 9].strip('-.')}-{digest}"


# ---------------------------------------------------------------- what a folder holds


def read(out: Path) -> list[Run]:
    """The runs that were launched into a folder; none where there were none.

    Raises:
        ConfigError: what it keeps of them is damaged.
    """
    found = records.read(out / FILE, FORMAT, "runs") or {"runs": []}
    try:
        return [Run(**{**run, "overrides": tuple(run["overrides"])}) for run in found["runs"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{out / FILE} is damaged: {error}. Choose another --out.") from error


def read_options(out: Path) -> dict[str, Any]:
    """How the runs of a folder were executed, by the names of the options; raises ConfigError."""
    found = (records.read(out / FILE, FORMAT) or {}).get("options", {})
    if not isinstance(found, dict):
        raise ConfigError(f"{out / FILE} is damaged: its options are {found!r}.")
    return found


def write(out: Path, runs: Sequence[Run], options: Mapping[str, Any] | None = None) -> None:
    """Keeps the runs of a folder, and how they are executed, for --resume and --status."""
    kept: list[Mapping[str, Any]] = [run._asdict() for run in runs]
    records.write(out / FILE, {"format": FORMAT, "options": dict(options or {}), "runs": kept})


def joined(out: Path, wanted: Sequence[Run], resume: bool) -> list[Run]:
    """The runs that a folder holds and those that are wanted.

    Raises:
        ConfigError: it holds other things; or runs, and nobody said that they shall go on.
    """
    known = {run.digest: run for run in read(out)}
    if known and not resume:
        raise ConfigError(
            f"{out} holds a launch of {len(known)} runs. Add --resume to go on with it, or choose "
            "another --out."
        )
    if not known and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is neither empty nor a launch ({FILE}). Choose another.")
    for run in wanted:
        known.setdefault(run.digest, run)
    return list(known.values())
