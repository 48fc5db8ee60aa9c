"""Measures two sides of a comparison in one run, and keeps the result as a table.

The sides take turns (A B, B A, A B, ...), so that a machine that gets slower or busier
does so for both. Each round gives one ratio, and the median of the ratios is reported
with its quartiles: a comparison that does not depend on how fast the machine is today.

Every section of RESULTS.md is written by the command that it names. A rerun replaces
the section of its benchmark on the same processor and leaves the others as they are.
"""

import argparse
import dataclasses
import datetime
import importlib.util
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import machine
from training.files import write_atomic

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
TITLE = """# Benchmarks, as measured

Each section was written by the command that it names, on the processor that it names: a ratio
holds for one processor, since our products and a peer's use different instructions of it.
"""
BUSY_CORES = 0.15  # more than this used by other programs moves a ratio by several per cent


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of each side in each round: `seconds[name][round]`."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Median seconds of one side."""
        return statistics.median(self.seconds[name])

    def ratios(self, peer: str, ours: str) -> list[float]:
        """How many times faster `ours` was than `peer`, round by round."""
        return [p / o for p, o in zip(self.seconds[peer], self.seconds[ours], strict=True)]


def alternate(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    per_turn: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times the sides in turns, in alternating order.

    A turn begins with a call that is not timed: the threads of the other side still spin
    and its data fills the caches, which costs the next call up to a tenth (measured with
    products of 25 ms). What is timed is the steady state that training has.

    Args:
        sides: name -> a function that does one unit of work and returns when it is done
            (for JAX: blocks until the result is ready).
        rounds: how many turns of each side are timed.
        warm_up: turns before that which are not timed (compilation, pools, allocators).
        per_turn: timed calls in a turn; its time is that of their mean.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(-warm_up, rounds):
        order = list(sides) if round_number % 2 == 0 else list(sides)[::-1]
        for name in order:
            work = sides[name]
            work()
            start = clock()
            for _ in range(per_turn):
                work()
            if round_number >= 0:
                seconds[name].append((clock() - start) / per_turn)
    return Timing(seconds)


class Worker:
    """A side that works in a process of its own: benchmarks/peers/worker.py.

    A peer shares no process with us where a setting of the process, such as what malloc
    does with freed memory, would change its speed. Calling the worker asks for one piece
    of work, waits for it and gives its result; `close` or leaving `with` ends the process.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.peers.worker"]
        command.append(json.dumps({"kind": kind, **options}))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def __call__(self) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, json.JSONDecodeError) as error:
            raise RuntimeError("the peer's process ended; see its message above") from error

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; all three equal for a single value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured thing and the goal that it is held against.

    Attributes:
        what: what was measured, in words.
        columns: further cells, header -> text.
        value: the number that has a goal, or None where there is none (a note).
        spread: lower and upper quartile of the value, where it was measured in rounds.
        goal: what the value is to reach.
        at_most: True where the goal is an upper limit (memory), False for a lower one.
        unit: written behind the value, such as "x" or " GiB".
    """

    what: str
    columns: Mapping[str, str]
    value: float | None = None
    spread: tuple[float, float] | None = None
    goal: float | None = None
    at_most: bool = False
    unit: str = "x"

    def with_columns(self, columns: Mapping[str, str]) -> "Row":
        """The same row with more cells."""
        return dataclasses.replace(self, columns={**self.columns, **columns})

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> dict[str, str]:
        """All cells of the row as text, in the order of the table."""
        result = "" if self.value is None else f"{self.value:.2f}{self.unit}"
        if self.spread is not None:
            result += f" ({self.spread[0]:.2f}-{self.spread[1]:.2f})"
        goal = ""
        if self.goal is not None:
            verdict = {True: "reached", False: "missed", None: "not measured"}[self.reached]
            goal = f"{'<=' if self.at_most else '>='} {self.goal:g}{self.unit}: {verdict}"
        return {"what": self.what, **self.columns, "result": result, "goal": goal}


def compared(
    what: str, timing: Timing, peer: str, ours: str, units: float, unit: str, goal: float | None
) -> Row:
    """The row of a comparison: medians and rates, the median ratio and its quartiles.

    Sides beside the two have a cell with their time and their ratio to ours.

    Args:
        units: tokens, sentences, ... in one timed piece of work; `unit` names them.
    """
    low, middle, high = quartiles(timing.ratios(peer, ours))
    columns = {}
    for name in (ours, peer):
        seconds = timing.median(name)
        columns[name] = f"{1e3 * seconds:.1f} ms, {units / seconds:,.0f} {unit}/s"
    for name in timing.seconds.keys() - {ours, peer}:
        ratio = quartiles(timing.ratios(name, ours))[1]
        columns[name] = f"{1e3 * timing.median(name):.1f} ms, {ratio:.2f}x"
    return Row(what, columns, middle, (low, high), goal)


def render(rows: Sequence[Row]) -> str:
    """A Markdown table with one line for each row; missing cells stay empty."""
    cells = [row.cells() for row in rows]
    ends = ("result", "goal")
    headers = list(dict.fromkeys(key for row in cells for key in row if key not in ends))
    headers += [end for end in ends if any(row[end] for row in cells)]
    lines = [headers, ["---"] * len(headers)]
    lines += [[row.get(header, "") for header in headers] for row in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_section(document: str, title: str, body: str) -> str:
    """`document` with the section `## title` replaced, or added at the end."""
    section = f"## {title}\n\n{body.strip()}\n"
    parts = document.split("\n## ")
    head, sections = parts[0], ["## " + part for part in parts[1:]]
    if not head.strip():
        head = TITLE
    sections = [part.strip() + "\n" for part in sections]
    starts = [part.split("\n", 1)[0] for part in sections]
    if f"## {title}" in starts:
        sections[starts.index(f"## {title}")] = section
    else:
        sections.append(section)
    return "\n".join([head.strip() + "\n", *sections])


def save_section(title: str, body: str, path: pathlib.Path) -> None:
    """Writes one section of the results file; the others keep what they say."""
    document = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomic(path, replace_section(document, title, body))


def command(argv: Sequence[str] = tuple(sys.argv)) -> str:
    """The command of this run, as one would type it."""
    name = pathlib.Path(argv[0]).stem
    return shlex.join(["python", "-m", f"benchmarks.{name}", *argv[1:]])


def arguments(doc: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """The arguments that all benchmarks share; `rounds` is a default, None for no choice."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="timed turns of each side")
    parser.add_argument(
        "--no_save", action="store_true", help="print the table and leave RESULTS.md as it is"
    )
    parser.add_argument(
        "--busy", action="store_true", help="save even if other programs use the processor"
    )
    return parser


def has(package: str) -> bool:
    """Whether a peer's package is installed."""
    return importlib.util.find_spec(package) is not None


def skip(title: str, package: str = "PyTorch") -> int:
    """Says why a benchmark does not run; returns its exit code."""
    print(f"{title}: skipped, {package} is not installed (make bench installs it).")
    return 0


def report(
    title: str,
    rows: Sequence[Row],
    notes: Sequence[str],
    options: argparse.Namespace,
    busy: float,
    on: str = "",
) -> None:
    """Prints the table and keeps it, unless that was declined or the machine was busy.

    Args:
        busy: cores that other programs used just before the measurement.
        on: the device that was measured; the processor.
    """
    today = datetime.date.today().isoformat()
    stamp = f"{today}, commit {machine.commit()}, `{command()}`  \n{machine.describe()}; "
    stamp += f"other programs used {busy:.2f} cores before the start."
    body = "\n\n".join([stamp, render(rows), *notes])
    title = f"{title}: {on or machine.processor()}"
    print(f"\n## {title}\n\n{body}\n", flush=True)
    if options.no_save:
        return
    if busy > BUSY_CORES and not options.busy:
        print(
            f"Not saved: other programs use {busy:.2f} cores. Wait for a quiet machine, or save"
            " all the same with --busy.",
            file=sys.stderr,
        )
        return
    save_section(title, body, RESULTS)
