"""What accelerators can do at most, from their makers' data sheets."""

import math
import re
from typing import NamedTuple

from errors import ConfigError
from registry import unknown

GB, TB, GHZ = 1e9, 1e12, 1e9

# Dense bfloat16 (float16 for V100 and T4) in FLOP/s. The first name that stands in the device's
# own counts.
GPU_FLOPS = {
    "GH200": 989 * TB,
    "H200": 989 * TB,
    "H100 PCIe": 756 * TB,
    "H100": 989 * TB,
    "B200": 2250 * TB,
    "A100": 312 * TB,
    "L40S": 362 * TB,
    "L4": 121 * TB,
    "V100": 125 * TB,
    "T4": 65 * TB,
}


class Chip(NamedTuple):
    """One chip.

    Attributes:
        flops: dense bfloat16 FLOP/s.
        float32: share of that which products of float32 reach: a TPU rounds their inputs to
            bfloat16, a GPU to TensorFloat-32 (both JAX's default precision).
        memory: bytes; bandwidth: of the memory, bytes/s.
        links: bytes/s that the chip sends to its neighbours, over all its links together.
        network: bytes/s that it sends beyond them.
        together: chips that the fast links join: a pod, or the GPUs of a host.
        topology: sizes of the largest TPU pod; empty for GPUs.
        clock: of a TPU's cores, Hz, from its peak and its matrix units; 0 for GPUs.
        source: where the figures stand.
    """

    flops: float
    float32: float
    memory: float
    bandwidth: float
    links: float
    network: float
    together: int
    topology: tuple[int, ...]
    clock: float
    source: str


def _tpu(
    flops: float, gigabytes: float, bandwidth: float, links: float, clock: float, *pod: int
) -> Chip:
    """Beyond the pod a host of four chips shares a network of 200 Gbit/s."""
    return Chip(
        flops=flops,
        float32=1.0,
        memory=gigabytes * 2**30,
        bandwidth=bandwidth,
        links=links,
        network=25 * GB / 4,
        together=math.prod(pod),
        topology=pod,
        clock=clock,
        source="Google Cloud, TPU system architecture, the page of the version",
    )


def _gpu(
    name: str, gigabytes: float, bandwidth: float, links: float, network: float, source: str
) -> Chip:
    """Eight to a host, each with a network port of its own."""
    return Chip(
        flops=GPU_FLOPS[name],
        float32=0.5,
        memory=gigabytes * GB,
        bandwidth=bandwidth,
        links=links,
        network=network,
        together=8,
        topology=(),
        clock=0.0,
        source=f"NVIDIA, {source}",
    )


CHIPS = {
    "v4": _tpu(275 * TB, 32, 1228 * GB, 300 * GB, 1.05 * GHZ, 12, 16, 16),
    "v5e": _tpu(197 * TB, 16, 819 * GB, 200 * GB, 1.5 * GHZ, 16, 16),
    "v5p": _tpu(459 * TB, 95, 2765 * GB, 600 * GB, 1.75 * GHZ, 16, 20, 28),
    "v6e": _tpu(918 * TB, 32, 1638 * GB, 448 * GB, 1.75 * GHZ, 16, 16),
    "A100": _gpu("A100", 80, 2039 * GB, 300 * GB, 25 * GB, "A100 80 GB SXM data sheet, DGX A100"),
    "H100": _gpu("H100", 80, 3350 * GB, 450 * GB, 50 * GB, "H100 SXM data sheet, DGX H100"),
    "H200": _gpu("H200", 141, 4800 * GB, 450 * GB, 50 * GB, "H200 SXM data sheet, DGX H200"),
    "B200": _gpu("B200", 180, 8000 * GB, 900 * GB, 50 * GB, "DGX B200 data sheet"),
}


def find_chip(name: str, what: str = "chip") -> Chip:
    """The chip of that name; a ConfigError with the nearest one if there is none."""
    if name not in CHIPS:
        raise ConfigError(unknown(what, name, CHIPS))
    return CHIPS[name]


def gpu_flops(device_name: str) -> float | None:
    """Peak of a GPU by the name that it gives itself; None for one that is not in the table."""
    return next(
        (peak for name, peak in GPU_FLOPS.items() if re.search(rf"\b{name}\b", device_name)), None
    )
