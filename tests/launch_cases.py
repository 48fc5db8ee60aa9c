"""Launches of stand-ins, and what has become of them."""

import json
import re
from pathlib import Path
from typing import Any

import launch_stub

from experiments.launching import plan, status

CONFIG = "configs/synthetic.py:smoke"
STEPS = f"--config.num_steps={launch_stub.STEPS}"


def arguments(out: Path, *seeds: int, more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a launch of runs with these seeds."""
    listed = ",".join(map(str, seeds))
    return [f"--config={CONFIG}", f"--out={out}", STEPS, f"--grid=seed={listed}", *more]


def states(out: Path) -> dict[str, str]:
    """seed -> state of each run of a folder."""
    rows = [status.row_of(run, out) for run in plan.read(out)]
    return {re.search(r"seed=(\d+)", row.name)[1]: row.state for row in rows}


def events(out: Path, seed: int, name: str) -> list[dict[str, Any]]:
    """Entries of a run's journal."""
    (folder,) = out.glob(f"*seed={seed}-*")
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == name]
