"""What this machine has for runs: accelerators, cores, memory; found without starting JAX."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from errors import ConfigError
from training import gpus

GB = 1e9


class Place(NamedTuple):
    """What one run at a time may use: environment variables, and cores (none: all of them)."""

    env: Mapping[str, str]
    cores: frozenset[int] = frozenset()


def places(jobs: int | None, memory_gb: float, most: int) -> list[Place]:
    """Room for runs at the same time: a GPU each, or a share of the cores.

    Args:
        jobs: how many; by default one for each GPU, or else for each core. A host's TPU chips
            belong to one process.
        memory_gb: of the host, that a run needs.
        most: no more than so many are of use.

    Raises:
        ConfigError: --jobs is more than there are GPUs.
    """
    devices = gpus.visible()
    if devices and jobs is not None and jobs > len(devices):
        raise ConfigError(f"--jobs ({jobs}) is more than the GPUs that are here ({len(devices)}).")
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = jobs or len(devices) or (1 if has_tpu() else len(mine) or os.cpu_count() or 1)
    fit = int(min(most, available_bytes() / (memory_gb * GB))) if jobs is None else count
    count = max(1, min(count, fit, most))
    if devices:
        return [Place({"CUDA_VISIBLE_DEVICES": name}) for name in devices[:count]]
    if not mine:  # a system that gives no process cores of its own
        return [Place({})] * count
    return [Place({}, frozenset(mine[i::count] or mine[i % len(mine) :][:1])) for i in range(count)]


def has_tpu() -> bool:
    """Whether this host has chips of a TPU."""
    return Path("/dev/accel0").exists() and "cpu" not in os.environ.get("JAX_PLATFORMS", "")


def available_bytes() -> float:
    """Memory that processes may still take, of the machine and of this control group."""
    found = [float("inf")]
    try:
        text = Path("/proc/meminfo").read_text()
        found += [int(kb) * 1024 for kb in re.findall(r"MemAvailable: +(\d+) kB", text)]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # another system, or another version of control groups
        pass
    return max(0.0, min(found))
