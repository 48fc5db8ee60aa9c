"""The cores of a CPU as devices of JAX."""

import os

import jax

MOST = 8  # each device holds a copy of the parameters
FLAG = "--xla_force_host_platform_device_count"


def asked_for() -> bool:
    """Whether XLA_FLAGS says how many devices the CPU is."""
    return FLAG in os.environ.get("XLA_FLAGS", "")


def split(at_least: int = 1) -> None:
    """Makes each core a device, so that a search spreads its rows over them.

    On one device XLA runs the many small operations of a step of decoding one after the other
    on one core. Call it before JAX's first operation; XLA_FLAGS goes first where it names a
    number, and GPUs are not touched.

    Args:
        at_least: devices that training wants; more than there are cores are simulated.
    """
    if asked_for():
        return
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    number = max(at_least, min(MOST, mine or 1))
    if at_least > 1:
        # Devices that wait for each other hold a thread each while the next step queues behind;
        # XLA sizes its pool by this. It costs what the second device gains, and searches more.
        os.environ.setdefault("NPROC", str(2 * number))
    jax.config.update("jax_num_cpu_devices", number)


def for_training(found: list[jax.Device]) -> list[jax.Device]:
    """All of them; of a CPU the first, unless XLA_FLAGS made them on purpose.

    What a run learns would depend on the number of cores otherwise: each device draws its own
    dropout.
    """
    return found[:1] if found[0].platform == "cpu" and not asked_for() else found
