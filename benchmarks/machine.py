"""What a number was measured on: processor, memory, versions, and who else was using it."""

import importlib.metadata
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers")


def processor() -> str:
    """Name of the processor and its widest vector unit, as the operating system gives them."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.machine()
    flags = fields.get("flags", "").split()
    vectors = [v for v in ("amx_tile", "avx512f", "avx2") if v in flags]
    return f"{name} ({vectors[0]})" if vectors else name


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float | None:
    """Memory of the machine in GiB, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError, AttributeError):
        return None


def peak_gib() -> float:
    """The most memory that this process has held, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def versions() -> dict[str, str]:
    """Installed versions of the packages that a number depends on."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> str:
    """One line: processor, cores, memory, versions."""
    memory = memory_gib()
    parts = [f"{processor()}, {cores()} cores"]
    if memory is not None:
        parts.append(f"{memory:.0f} GiB")
    parts.append(", ".join(f"{name} {version}" for name, version in versions().items()))
    return "; ".join(parts)


def commit() -> str:
    """Short hash of the commit that is measured, with "+ changes" if files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ".", ":!benchmarks/RESULTS.md")
        return git("rev-parse", "--short", "HEAD") + (" + changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _busy_jiffies() -> float | None:
    try:
        first = pathlib.Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, interrupt, soft_interrupt, steal = map(int, first.split()[1:9])
    return user + nice + system + interrupt + soft_interrupt + steal


def cores_used_by_others(seconds: float = 2.0) -> float:
    """Cores that other programs keep busy while this one sleeps; 0.0 where unknown."""
    before = _busy_jiffies()
    if before is None:
        return 0.0
    time.sleep(seconds)
    after = _busy_jiffies()
    return ((after or before) - before) / os.sysconf("SC_CLK_TCK") / seconds
