"""Reads a compiled program: its loops, products and collectives, in XLA's own text.

XLA's cost analysis counts the body of a loop once. Here every instruction counts as often as its
loops run; a branch counts as if it were always taken.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from analysis.planning import ring

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
CALLED = re.compile(r"(calls|to_apply|body|condition|\w+_computations?)=(\{[^}]*\}|%?[\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONSTANT = re.compile(r"^(\d+)\)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
GROUPS = re.compile(
    r"replica_groups=(?:\[\d+,(?P<iota>\d+)\]<=\[(?P<sizes>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?"
    r"|\{\{(?P<listed>[\d,]+)\}|mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\})"
)
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}")
WINDOW = re.compile(r"window=\{([^}]*)\}")
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


class Shape(NamedTuple):
    """One array: its type and sizes."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        width = re.search(r"\d+", self.dtype)  # bits: bf16, c64, f8e4m3fn; a pred is a byte
        return -(-math.prod(self.sizes) * (int(width[0]) if width else 8) // 8)


class Instruction(NamedTuple):
    """A line of a computation; `shapes` are those of its result."""

    name: str
    shapes: tuple[Shape, ...]
    kind: str
    rest: str

    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])


class Collective(NamedTuple):
    """Collectives of one kind among the same groups.

    Attributes:
        members: devices of the first group; the farthest pair of a permutation.
        number: how many run in a step.
        bytes: of their arrays on one device, the whole array where it is gathered or scattered.
        sent: bytes that a device sends, on a ring.
    """

    kind: str
    members: tuple[int, ...]
    number: int
    bytes: int
    sent: float

    @property
    def group(self) -> int:
        return len(self.members)


class Program(NamedTuple):
    """What a device does in one step.

    Attributes:
        flops, flops_once: of matrix products, with loops, and with each loop's body once.
        cycles, cycles_once: the compiler's estimate, likewise; 0 where it makes none.
        collectives: largest first.
        loops: how often each loop runs.
    """

    flops: float
    flops_once: float
    cycles: float
    cycles_once: float
    collectives: tuple[Collective, ...]
    loops: tuple[int, ...]


def read_program(text: str) -> Program:
    """The program in the text of a compiled module."""
    computations, entry = _parse(text)
    runs, trips = _runs(computations, entry)
    flops, cycles, once, cycles_once = 0.0, 0.0, 0.0, 0.0
    found: dict[tuple, list[tuple[int, Instruction]]] = {}
    for name, body in computations.items():
        here: dict[tuple, list[tuple[int, Instruction]]] = {}
        shapes = {line.name: line.shapes for line in body}
        for line in body:
            if match := CYCLES.search(line.rest):
                cycles += runs[name] * int(match[1])
                cycles_once += int(match[1]) * bool(runs[name])
            if line.kind in ("dot", "convolution"):
                each = _product_flops(line, shapes)
                flops, once = flops + runs[name] * each, once + each * bool(runs[name])
            if line.kind.removesuffix("-start") in KINDS and runs[name]:
                channel = (re.search(r"channel_id=(\d+)", line.rest) or [line.name])[0]
                here.setdefault((channel, line.shapes), []).append((runs[name], line))
        # Fused with its neighbours a collective stands in several computations; under pmap many
        # in one computation have the same channel.
        for key, lines in here.items():
            found[key] = max(lines, found.get(key, []), key=lambda of: sum(run for run, _ in of))
    collectives = _collectives(itertools.chain.from_iterable(found.values()))
    return Program(flops, once, cycles, cycles_once, collectives, tuple(trips))


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The lines of each computation, and the name of the first to run."""
    computations: dict[str, list[Instruction]] = {}
    entry, body = "", []
    for row in text.splitlines():
        if match := HEAD.match(row):
            body = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif match := LINE.match(row):
            shapes = tuple(
                Shape(dtype, tuple(int(n) for n in sizes.split(",") if n))
                for dtype, sizes in SHAPE.findall(match[2])
            )
            body.append(Instruction(match[1], shapes, match[3], match[4]))
    return computations, entry


def _runs(computations: dict[str, list[Instruction]], entry: str) -> tuple[Counter, list[int]]:
    """How often each computation runs, and the trip count of each loop."""
    runs: Counter = Counter({entry: 1})
    trips = []
    # A computation stands in the text before those that call it.
    for name in reversed(computations):
        for line in computations[name]:
            called = {
                key: re.findall(r"[\w.\-]+", names) for key, names in CALLED.findall(line.rest)
            }
            times = 1
            if line.kind == "while" and runs[name]:
                times = _trip_count(line, called["condition"][0], computations)
                trips.append(times)
            for key, names in called.items():
                for one in names:
                    runs[one] += runs[name] * (times if key == "body" else 1)
    return runs, trips


def _trip_count(line: Instruction, condition: str, computations: dict) -> int:
    """How often a loop runs that counts from 0; 1 if its condition names no number."""
    if match := TRIPS.search(line.rest):
        return int(match[1])
    limits, left = [], [condition]
    while left:
        for one in computations.get(left.pop(), ()):
            left += [name for key, name in CALLED.findall(one.rest) if key == "calls"]
            if one.kind == "constant" and (match := CONSTANT.match(one.rest)):
                limits.append(int(match[1]))
    return max(limits, default=1)


def _product_flops(line: Instruction, shapes: dict[str, tuple[Shape, ...]]) -> float:
    """FLOPs of a dot or a convolution, 2 for a multiply-add."""
    left, right = (shapes[name][0].sizes for name in line.operands()[:2])
    out = line.shapes[0].sizes
    if line.kind == "dot":
        match = CONTRACTED.search(line.rest)
        contracted = [int(i) for i in match[1].split(",") if i] if match else []
        return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)
    labels = LABELS.search(line.rest)
    assert labels is not None
    sizes = [
        dict(zip(names, at, strict=True))
        for names, at in zip(labels.groups(), (left, right, out), strict=True)
    ]
    window = WINDOW.search(line.rest)
    options = dict(part.split("=") for part in window[1].split()) if window else {}
    flops = 2.0 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"]
    for at, axis in enumerate(sorted(name for name in sizes[1] if name.isdigit())):
        flops *= _touched(at, sizes[0][axis], sizes[1][axis], sizes[2][axis], options)
    return flops


def _touched(at: int, base: int, kernel: int, out: int, options: dict[str, str]) -> int:
    """Pairs of a place of the result and one of the kernel that meet an element of the input:
    TPUs have the batch of a product as a dilated window, whose other places are empty."""

    def option(name: str, default: str) -> str:
        return options[name].split("x")[at] if name in options else default

    stride, low = int(option("stride", "1")), int(option("pad", "0_0").split("_")[0])
    spread, gap = int(option("lhs_dilate", "1")), int(option("rhs_dilate", "1"))
    last = (base - 1) * spread
    places = (o * stride + k * gap - low for o in range(out) for k in range(kernel))
    return sum(0 <= place <= last and place % spread == 0 for place in places)


def _collectives(found: Iterable[tuple[int, Instruction]]) -> tuple[Collective, ...]:
    totals: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for runs, line in found:
        kind, members = line.kind.removesuffix("-start"), _members(line.rest)
        group = len(members)
        if group == 1:
            continue
        shapes = line.shapes
        if line.kind.endswith("-start") and kind != "all-reduce":
            # (operands, results, contexts of a permutation)
            shapes = tuple(one for one in shapes if one != Shape("u32", ()))
            shapes = shapes[len(shapes) // 2 :]
        size = sum(shape.bytes for shape in shapes) * (group if kind == "reduce-scatter" else 1)
        total = totals.setdefault((kind, members), [0, 0, 0.0])
        for i, value in enumerate((1, size, ring(kind, group, size))):
            total[i] += runs * value
    rows = [Collective(*key, int(n), int(size), sent) for key, (n, size, sent) in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row.sent))


def _integers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _members(rest: str) -> tuple[int, ...]:
    """The devices of the first group of a collective."""
    if match := PAIRS.search(rest):
        ends = _integers(match[1])
        return max(zip(ends[::2], ends[1::2], strict=True), key=lambda pair: abs(pair[0] - pair[1]))
    match = GROUPS.search(rest)
    if match is None:
        return (0,)
    if match["listed"]:
        return tuple(_integers(match["listed"]))
    if match["iota"]:
        sizes = _integers(match["sizes"])
        order = _integers(match["order"]) if match["order"] else None
        devices = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
        return tuple(devices.ravel()[: int(match["iota"])].tolist())
    axes = dict(re.findall(r"'(\w+)'=(\d+)", match["mesh"]))
    inside = re.findall(r"'(\w+)'", match["axes"])
    devices = np.arange(math.prod(map(int, axes.values()))).reshape([*map(int, axes.values())])
    first = tuple(slice(None) if name in inside else 0 for name in axes)
    return tuple(devices[first].ravel().tolist())
