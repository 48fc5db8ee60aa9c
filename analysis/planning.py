"""What a training step needs and takes at least, by formula; of one device unless it says more."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from analysis.chips import Chip

# The first whose pattern is found in the path of a parameter or a product.
PARTS = (
    ("norms", r"norm"),
    ("feed-forward", r"feed_forward"),
    ("attention", r"self_attention|cross_attention|score|bhs|/attention/|last/"),
    ("embedding", r"embed|positions"),
    ("output", r"output|logits|^[/\W]*$"),
)
OTHERS = "other layers"
MOST_ANSWERS = 8  # of the search of the largest batch, from the first that fits


def part_of(path: str) -> str:
    """The part of a model to which a path of modules belongs."""
    return next((part for part, words in PARTS if re.search(words, path)), OTHERS)


def by_part(sizes: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Sums of (path, size), the largest part first."""
    found: dict[str, float] = {}
    for path, size in sizes:
        part = part_of(path)
        found[part] = found.get(part, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def dense_flops(
    num_products: float, tokens: float, layers: int, d_model: int, length: int
) -> float:
    """6 N T + 12 L d S T: training FLOPs of a Transformer (Chowdhery et al. 2022, appendix B).

    Args:
        num_products: parameters that are factors of products, N: all but norms, biases and
            tables that are only looked up.
        tokens: T, in a step; length: S, of a row, all of which is looked at.
    """
    return 6.0 * num_products * tokens + 12.0 * layers * d_model * length * tokens


def ring(kind: str, group: int, size: float) -> float:
    """Bytes that a device sends for a collective on arrays of that size, around a ring.

    `size` is of the whole array: the one that is reduced, the result of gathering, or what is
    scattered (Patarasuk & Yuan 2009).
    """
    if kind == "collective-permute":
        return size
    return (2 if kind == "all-reduce" else 1) * size * (group - 1) / group


class Exchange(NamedTuple):
    """Collectives by formula: of what, among which devices, and bytes that each of them sends."""

    what: str
    kind: str
    members: Sequence[int]
    sent: float

    @property
    def group(self) -> int:
        return len(self.members)


def exchanges(
    mesh: Mapping[str, int],
    parameter_bytes: float,
    compute_bytes: float,
    activation_bytes: float,
    reductions: float,
    recomputes: bool,
    pieces: int = 1,
) -> list[Exchange]:
    """What a step sends over the axes "data", "fsdp" and "tensor" of a mesh.

    data: the gradient is summed over replicas. fsdp: parameters are gathered before use, in the
    forward and in the backward pass, and the gradient is scattered (Rajbhandari et al. 2020,
    stage 3). tensor: the partial results of a product whose contracted axis is cut are summed,
    and so are the gradients of its partner's inputs (Shoeybi et al. 2019).

    Args:
        parameter_bytes: of all parameters, float32.
        compute_bytes: the same in the type in which they are gathered.
        activation_bytes: of the rows of one device, (tokens, d_model).
        reductions: products in the forward pass whose results are summed over tensor.
        recomputes: whether the backward pass runs the forward pass again.
        pieces: micro-batches, each of which gathers the parameters anew.
    """
    data, fsdp, tensor = (mesh.get(axis, 1) for axis in ("data", "fsdp", "tensor"))
    # The first group of each axis; neighbours in the last axis are neighbours among the devices.
    over_data = range(0, data * fsdp * tensor, fsdp * tensor)
    over_fsdp, over_tensor = range(0, fsdp * tensor, tensor), range(tensor)
    times = 3 if recomputes else 2
    rows = [
        ("gradients", "all-reduce", over_data, parameter_bytes / fsdp / tensor),
        ("parameters", "all-gather", over_fsdp, 2 * pieces * compute_bytes / tensor),
        ("gradients", "reduce-scatter", over_fsdp, parameter_bytes / tensor),
        ("activations", "all-reduce", over_tensor, times * reductions * activation_bytes),
    ]
    return [
        Exchange(what, kind, members, ring(kind, len(members), size))
        for what, kind, members, size in rows
        if len(members) > 1
    ]


class Roofline(NamedTuple):
    """Seconds that a step takes at least (Williams et al. 2009).

    Attributes:
        compute: products at the peak; memory: bytes at the bandwidth; network: bytes sent.
    """

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """The longest of the three: each hides behind it."""
        return max(self)

    @property
    def bound(self) -> str:
        return self._fields[self.index(self.seconds)]


def peak(chip: Chip, float32: bool) -> float:
    """FLOP/s of a chip's products in bfloat16, or of float32 as JAX computes them by default."""
    return chip.flops * (chip.float32 if float32 else 1.0)


def message_seconds(chip: Chip, members: Sequence[int], sent: float) -> float:
    """Seconds of a ring among these devices, each of which sends so many bytes.

    Device i is on host i // chip.together. A ring enters and leaves a host once: if each of n
    devices sends s, then s n / (n - 1) (h - 1) / h bytes leave each of h hosts, through the
    network ports of its members all together. (A permutation is a ring of two.)
    """
    hosts = Counter(i // chip.together for i in members)
    inside = sent / chip.links
    if len(hosts) == 1:
        return inside
    ports, whole = min(hosts.values()), sent * len(members) / (len(members) - 1)
    beyond = whole * (len(hosts) - 1) / len(hosts) / (ports * chip.network)
    return max(beyond, inside) if max(hosts.values()) > 1 else beyond


def roofline(
    chip: Chip,
    float32: bool,
    flops: float,
    bytes_: float,
    sent: Iterable[tuple[Sequence[int], float]],
) -> Roofline:
    """The roofline of a step.

    Args:
        float32: whether products are of float32.
        bytes_: read and written.
        sent: (members, bytes that each of them sends) of each collective.
    """
    network = sum(message_seconds(chip, members, size) for members, size in sent)
    return Roofline(flops / peak(chip, float32), bytes_ / chip.bandwidth, network)


def utilisation(chip: Chip, float32: bool, model_flops: float, seconds: float, count: int) -> float:
    """MFU: model FLOPs of a step over what all chips could do in its time."""
    return model_flops / (seconds * count * peak(chip, float32)) if seconds else 0.0


class Budget(NamedTuple):
    """A whole run: its steps, days, chip-hours, and price, 0 where it is not known."""

    steps: int
    days: float
    chip_hours: float
    price: float


def budget(tokens: float, per_step: int, seconds: float, count: int, hourly: float) -> Budget:
    """What a number of tokens takes at `seconds` a step; `hourly` is the price of a chip-hour."""
    steps = -(-int(tokens) // per_step)
    hours = steps * seconds / 3600
    return Budget(steps, hours / 24, hours * count, hours * count * hourly)


def largest(
    memory: Callable[[int], float], limit: float, unit: int, start: int, slope: float
) -> int:
    """The most rows whose memory is within a limit, to one part in sixteen; 0 if none are.

    Bisection that goes where the memory, nearly a straight line in the rows, meets the limit; it
    asks seldom, because each answer is a compilation. Until some rows fit it asks for a quarter of
    those that did not, or fewer.

    Args:
        memory: rows -> bytes; rises with them.
        unit: rows are a multiple of it.
        start: the rows to ask for first.
        slope: bytes of a row, roughly, until two answers are known.
    """
    fits, fails = (0, 0.0), (0, 0.0)  # rows and memory; no rows are known to fail yet
    rows = max(unit, start // unit * unit)
    left = MOST_ANSWERS
    while left:
        found = memory(rows)
        known = fits if fits[0] else fails
        if known[0] and known[0] != rows:
            slope = abs((found - known[1]) / (rows - known[0])) or slope
        if found <= limit:
            fits = (rows, found)
        else:
            fails = (rows, found)
        left -= 1 if fits[0] else 0
        at = rows + (limit - found) / slope
        low, high = fits[0] + unit, (fails[0] or 64 * rows) - unit
        if fits[0] and fails[0] > 4 * fits[0]:  # too far apart for a straight line between them
            at = math.sqrt(fits[0] * fails[0])
        if not fits[0]:
            high = min(high, max(unit, rows // 4 // unit * unit))
        if low > high or (fails[0] and fails[0] - fits[0] <= max(unit, fits[0] // 16)):
            break
        rows = min(max(int(at // unit) * unit, low), high)
    return fits[0]
