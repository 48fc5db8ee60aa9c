"""What the benchmarks of translation and of generation share: two sides that write texts."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness, machine
from training import memory

PEER = "Hugging Face"


class Job(NamedTuple):
    """What both sides do.

    Attributes:
        title: of the section.
        worker: the kind of harness.Worker that is the peer.
        build: makes our side; what it makes gives (rows, length) token ids, as the peer does.
        what, units, unit, goal: of harness.compared.
        wrote: what of the texts, for the note: "translations".
        remark: a last sentence of the note.
    """

    title: str
    worker: str
    build: Callable[[], Callable[[], np.ndarray]]
    what: str
    units: int
    unit: str
    goal: float
    wrote: str = "texts"
    remark: str = ""


def compare(job: Job, options: argparse.Namespace) -> int:
    """Measures, prints and keeps the table; returns the exit code."""
    if not harness.has("transformers"):
        return harness.skip(job.title, "Hugging Face's transformers")
    memory.keep_freed_memory()
    busy, ours = machine.cores_used_by_others(), job.build()
    with harness.Worker(job.worker) as peer:
        equal = (ours() == np.array(peer())).all(axis=1)
        sides: dict[str, Callable[[], Any]] = {"ours": ours, PEER: peer}
        timing = harness.alternate(sides, options.rounds, per_turn=1)
    row = harness.compared(job.what, timing, PEER, "ours", job.units, job.unit, job.goal)
    note = (
        f"Both wrote with the same weights; {equal.sum()} of {len(equal)} {job.wrote} are the"
        f" same, token for token. {job.remark}"
    )
    harness.report(job.title, [row], [note.strip()], options, busy)
    return 0
