"""The cores of a CPU as devices of JAX."""

import importlib.util
import os
from importlib.metadata import entry_points

import jax

from errors import ConfigError

MOST = 8  # each device holds a copy of the parameters
FLAG = "--xla_force_host_platform_device_count"


def asked_for() -> bool:
    """Whether XLA_FLAGS says how many devices the CPU is."""
    return FLAG in os.environ.get("XLA_FLAGS", "")


def split(at_least: int = 1, processes: int = 1) -> None:
    """Makes each core a device, so that a search spreads its rows over them.

    On one device XLA runs the many small operations of a step of decoding one after the other
    on one core. Call it before JAX's first operation; XLA_FLAGS goes first where it names a
    number, and GPUs are not touched.

    Args:
        at_least: devices that training wants; more than there are cores are simulated.
        processes: on which the devices are.
    """
    without_absent_tpu()
    if asked_for():
        return
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    number = max(-(-at_least // processes), min(MOST, mine or 1))
    if at_least > 1:
        # Devices that wait for each other hold a thread each while the next step queues behind;
        # XLA sizes its pool by this. It costs what the second device gains, and searches more.
        os.environ.setdefault("NPROC", str(2 * number))
    jax.config.update("jax_num_cpu_devices", number)


def without_absent_tpu() -> None:
    """Keeps JAX from starting the TPU compiler of the extra `plan` where there is nothing but a
    CPU.

    JAX tries whatever libtpu is installed; it finds no TPU, says so in several lines, and has
    left its profiler in the process, in which the first trace then crashes. Where it has found
    TPUs, JAX has chosen them by now; with GPUs it is left to choose.
    """
    chosen = getattr(jax.config, "jax_platforms", None)
    accelerators = importlib.util.find_spec("jax_plugins") or entry_points(group="jax_plugins")
    if not chosen and not accelerators and importlib.util.find_spec("libtpu"):
        jax.config.update("jax_platforms", "cpu")


def for_training(found: list[jax.Device], wanted: int, processes: int = 1) -> list[jax.Device]:
    """So many of them, as many of each process; 0 is all, and of a CPU the first of each
    process, unless XLA_FLAGS made them on purpose.

    What a run learns would depend on the number of cores otherwise: each device draws its own
    dropout.

    Raises:
        ConfigError: some process would have another number than the others.
    """
    if not wanted and found[0].platform == "cpu" and not asked_for():
        wanted = processes
    each, rest = divmod(wanted or len(found), processes)
    if rest:
        raise ConfigError(
            f"config.parallel.num_devices ({wanted}) must be a multiple of the number of "
            f"processes, {processes}."
        )
    if processes == 1:
        return found[:each]
    own: dict[int, list[jax.Device]] = {}
    for device in found:
        own.setdefault(device.process_index, []).append(device)
    return [device for process in sorted(own) for device in own[process][:each]]
