"""The devices of a plan: chips by name and number, and stand-ins for them to compile for."""

import contextlib
import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax

from analysis.chips import Chip, find_chip
from errors import ConfigError
from training import cores

MOST_SIMULATED = 8960  # devices that a CPU shows itself as: the largest pod, some 20 seconds
MOST_COMPILED = 256  # of them; above, formulas


class Target(NamedTuple):
    """What a run is planned for.

    Attributes:
        name: as it was given.
        chip: one of them.
        num_chips: how many; one device of JAX each.
        topology: of TPUs, such as "v5p:8x8x16".
    """

    name: str
    chip: Chip
    num_chips: int
    topology: str


def parse_target(text: str) -> Target:
    """The target of --devices: "v5p:8x8x16", "256xH100", or "H100" for one.

    Raises:
        ConfigError: an unknown chip, or a topology that does not exist.
    """
    what = "chip of --devices"
    if match := re.fullmatch(r"(?:(\d+)x)?([^:]+)", text):
        chip, count = find_chip(match[2], what), int(match[1] or 1)
        if chip.topology:
            sizes = "x".join("4" * len(chip.topology))
            raise ConfigError(
                f"--devices: TPUs have a topology, such as {match[2]}:{sizes}, got {text!r}."
            )
        if not count:
            raise ConfigError(f"--devices must be at least one chip, got {text!r}.")
        return Target(text, chip, count, "")
    name, _, sizes = text.partition(":")
    chip = find_chip(name, what)
    if not chip.topology:
        raise ConfigError(f"--devices: GPUs are counted, such as 8x{name}, got {text!r}.")
    found = [int(n) for n in sizes.split("x")] if re.fullmatch(r"\d+(x\d+)*", sizes) else []
    most = chip.topology
    fits = zip(sorted(found), sorted(most), strict=False)
    if len(found) != len(most) or not all(1 <= n <= limit for n, limit in fits):
        shape = "x".join(map(str, most))
        raise ConfigError(
            f"--devices: a {name} topology has {len(most)} sizes, at most {shape}, got {text!r}."
        )
    return Target(text, chip, math.prod(found), text)


def has_compiler() -> bool:
    """Whether TPU programs can be compiled here."""
    return importlib.util.find_spec("libtpu") is not None


def prepare(target: Target) -> None:
    """Makes JAX look for no accelerator, and the CPU as many devices as are to be simulated."""
    jax.config.update("jax_platforms", "cpu")
    if target.topology and has_compiler():
        os.environ.pop("XLA_FLAGS", None)  # one that libtpu does not know ends the process
    elif target.num_chips > 1 and not cores.asked_for():
        if target.num_chips > MOST_SIMULATED:
            raise ConfigError(
                f"--devices: at most {MOST_SIMULATED:,} can be simulated, got {target.name!r}."
            )
        with contextlib.suppress(RuntimeError):  # JAX has looked already
            jax.config.update("jax_num_cpu_devices", target.num_chips)


def devices_for(target: Target) -> tuple[list[jax.Device], str]:
    """(devices to compile for, "tpu" or "cpu"); neither runs anything.

    Raises:
        ConfigError: the TPU compiler knows no such topology, or the CPU is fewer devices.
    """
    if target.topology and has_compiler():
        return tpu_devices(target.topology), "tpu"
    found = jax.devices("cpu")
    if len(found) < target.num_chips:
        raise ConfigError(
            f"--devices: {target.name!r} needs {target.num_chips:,} simulated devices, but this "
            f"process has {len(found)}: is XLA_FLAGS set?"
        )
    return found[: target.num_chips], "cpu"


def tpu_devices(topology: str) -> list[jax.Device]:
    """The devices of a TPU topology, by libtpu; no TPU is looked for."""
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no server of metadata to ask
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it locks a TPU that is not here
    # Two cores of a v4 are one device, as where JAX runs on it.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        described = topologies.get_topology_desc(topology, platform="tpu", **options)
    except Exception as error:  # of the compiler's own kind
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ConfigError(f"--devices: the TPU compiler refuses {topology!r}: {reason}") from error
    return list(described.devices)
