"""What the options that save memory save, and what they cost in time.

  python -m benchmarks.memory_options

Memory is what XLA sets aside for a train step of train.py (`memory_analysis` of the compiled
program): "state" are parameters and moments, "temporary" is all else, most of it what the forward
pass keeps for the backward pass. Three tables: the options one by one on a language model of each
family, with their time; GPT-2 small and BERT-base; and meshes of eight devices, for which the
command starts itself again with as many simulated ones.
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import models
from benchmarks import harness, machine, ours
from benchmarks.workloads import Workload, transformer_lm
from configs import base_families
from training import memory

TITLE = "Memory: options of a train step"
PUBLISHED_TITLE = "Memory: published shapes"
MESH_TITLE = "Memory: meshes of eight devices"
NUM_DEVICES = 8
MIB = 2**20

_LSTM = {"name": "recurrent_lm", "embedding_size": 256, "hidden_size": 256, "num_layers": 2}
GPT = Workload("GPT, d 256, 4 layers", transformer_lm(256, 4, 4), 8192, 8, 0, 256)
LONG = dataclasses.replace(GPT, title="GPT, one row of 4,096", rows=1, target_length=4096)
LSTM = Workload("LSTM, D = H = 256, 2 layers", _LSTM, 8192, 8, 0, 256)
# Options of the model and micro-batches.
OPTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 1),
    "remat=dots": ({"remat": "dots"}, 1),
    "remat=matrices": ({"remat": "matrices"}, 1),
    "remat=true": ({"remat": True}, 1),
    "accumulate=4": ({}, 4),
    "dtype=bfloat16": ({"dtype": "bfloat16"}, 1),
}
STACKED: dict[str, tuple[dict[str, Any], int]] = {
    "attention=blockwise": ({"attention": "blockwise"}, 1),
    "scan_layers=true": ({"scan_layers": True}, 1),
    "scan_layers=true, remat=true": ({"scan_layers": True, "remat": True}, 1),
    "scan_layers=true, remat=true, accumulate=4": ({"scan_layers": True, "remat": True}, 4),
}
CHUNKED = {
    "remat_chunk=16": ({"remat_chunk": 16}, 1),
    "remat_chunk=16, accumulate=4": ({"remat_chunk": 16}, 4),
}
PUBLISHED = {
    "GPT-2 small, V 50257, B 8, T 1024": ("gpt2", "gpt2-small", 50257, 8, 1024, 0),
    "BERT-base, V 30522, B 32, T 512": ("bert", "bert-base", 30522, 32, 512, 77),
}
PLACES = {"batch": ("data",), "length": ("fsdp",)}


def compiled(
    workload: Workload,
    shape: tuple[int, int, int] = (1, 1, 1),
    accumulate: int = 1,
    rules: Mapping[str, Any] | None = None,
) -> Any:
    """The train step of a workload for a mesh, compiled from shapes: nothing is allocated.

    For one device it is that of pmap.
    """
    num_devices, model = int(np.prod(shape)), models.build(workload.model, workload.vocab_size)
    kind = ours.MESH if num_devices > 1 else ours.PMAP
    where = {**kind, "num_devices": num_devices, "mesh": shape, "rules": rules or {}}
    strategy, init, step = ours.program(model, ours.task_of(workload), where, 0, accumulate)
    batch, state = strategy.shapes(workload.batch()), strategy.abstract(init)
    return strategy.train_step(step).lower(state, batch, jax.random.key(1)).compile()


def temporary_bytes(workload: Workload, accumulate: int = 1) -> int:
    """What a train step on one device needs beside its state and its batch."""
    return compiled(workload, accumulate=accumulate).memory_analysis().temp_size_in_bytes


def option_rows(
    workload: Workload, options: Mapping[str, tuple[dict[str, Any], int]], rounds: int
) -> list[harness.Row]:
    """Memory and time of each option, and their ratios to none."""
    task, batch = ours.task_of(workload), workload.batch()
    one, sides, kept = {**ours.PMAP, "num_devices": 1}, dict[str, Callable[[], object]](), {}
    for name, (changes, accumulate) in options.items():
        changed = workload.changed(**changes)
        kept[name] = temporary_bytes(changed, accumulate)
        sides[name] = ours.TrainStep(changed.model, task, lambda: batch, one, 0, accumulate)
    timing, found = harness.alternate(sides, rounds), []
    for name in options:
        low, middle, high = harness.quartiles(timing.ratios(name, "nothing"))
        columns = {
            "temporary": f"{kept[name] / MIB:.0f} MiB, {kept[name] / kept['nothing']:.2f}x",
            "time": f"{1e3 * timing.median(name):.0f} ms",
        }
        found.append(
            harness.Row(f"{workload.title}: {name}", columns, middle, (low, high), unit="x time")
        )
    return found


def published_rows() -> list[harness.Row]:
    """Temporary memory of published models, for each policy."""
    found = []
    for title, (family, preset, vocab_size, num_rows, length, hidden) in PUBLISHED.items():
        block = base_families.family(family)[preset]
        workload = Workload(title, block, vocab_size, num_rows, 0, length, hidden=hidden)
        policies: tuple = (False, "dots", "matrices", True)
        sizes = {
            name: temporary_bytes(workload.changed(remat=name, scan_layers=True))
            for name in policies
        }
        columns = {
            f"remat={str(name).lower()}": f"{size / 2**30:.1f} GiB" for name, size in sizes.items()
        }
        found.append(harness.Row(title, columns, sizes[False] / sizes[True]))
    return found


def mesh_rows() -> list[harness.Row]:
    """What each of eight devices holds and computes, as shares of one that is alone."""
    long = dataclasses.replace(GPT, title="GPT, one row of 2048 places", rows=1, target_length=2048)
    meshes: list[tuple[str, tuple[int, int, int], dict]] = [
        ("alone", (1, 1, 1), {}),
        *((str(shape), shape, {}) for shape in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4))),
        ("(1, 8, 1), places cut by fsdp", (1, 8, 1), PLACES),
    ]
    cases = [(GPT, meshes), (LSTM, meshes[:-1]), (long, [meshes[0], meshes[-1]])]
    return [
        harness.Row(f"{workload.title}: {name}", mesh_cells(workload, shape, rules))
        for workload, chosen in cases
        for name, shape, rules in chosen
    ]


def mesh_cells(
    workload: Workload, shape: tuple[int, int, int], rules: Mapping[str, Any]
) -> dict[str, str]:
    """State, temporary memory and work of one device, and its collectives."""
    program = compiled(workload, shape, rules=rules)
    found, text = program.memory_analysis(), program.as_text()
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
    counts = {kind: text.count(f" {kind}(") + text.count(f" {kind}-start(") for kind in kinds}
    return {
        "state": f"{found.argument_size_in_bytes / MIB:.1f} MiB",
        "temporary": f"{found.temp_size_in_bytes / MIB:.0f} MiB",
        "FLOPs": f"{program.cost_analysis()['flops'] / 1e9:.2f} G",
        "collectives": ", ".join(f"{n} {kind}" for kind, n in counts.items() if n),
    }


def report_options(options: argparse.Namespace, busy: float) -> None:
    """The options one by one, with their time."""
    rows = option_rows(GPT, OPTIONS | STACKED, options.rounds)
    blockwise = {name: (OPTIONS | STACKED)[name] for name in ("nothing", "attention=blockwise")}
    rows += option_rows(LONG, blockwise, options.rounds)
    rows += option_rows(LSTM, OPTIONS | CHUNKED, options.rounds)
    notes = [
        "B 8, T 256, V 8192 unless said. Temporary: beside state and batch, and its ratio to the"
        " row `nothing`. Result: time over that of `nothing`, median of the rounds (quartiles)."
    ]
    harness.report(TITLE, rows, notes, options, busy)


def report_published(options: argparse.Namespace, busy: float) -> None:
    """Published shapes; nothing is run, so nothing is timed."""
    notes = [
        "Temporary memory of a train step in float32 on one CPU device, whose attention holds its"
        " scores, with scan_layers=true: without, XLA's CPU compiler keeps what it should compute"
        " again. Result: all kept over remat=true."
    ]
    harness.report(PUBLISHED_TITLE, published_rows(), notes, options, busy)


def report_meshes(options: argparse.Namespace, busy: float) -> None:
    """Meshes, of a process that has no devices yet."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
    notes = [
        "A device's share. FLOPs count the body of a loop once. The devices are simulated, so"
        " no time is given; an accelerator's compiler has fewer and other collectives."
    ]
    harness.report(MESH_TITLE, mesh_rows(), notes, options, busy)


TABLES = {"options": report_options, "published": report_published, "meshes": report_meshes}


def main() -> int:
    """Measures, prints and keeps the three tables, each in a process of its own."""
    parser = harness.arguments(__doc__, rounds=5)
    parser.add_argument("--table", choices=TABLES, help="this one alone")
    options = parser.parse_args()
    if options.table:
        memory.keep_freed_memory()
        TABLES[options.table](options, machine.cores_used_by_others())
        return 0
    command = [sys.executable, "-m", "benchmarks.memory_options", *sys.argv[1:]]
    codes = [
        subprocess.run([*command, f"--table={t}"], cwd=harness.ROOT).returncode for t in TABLES
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
