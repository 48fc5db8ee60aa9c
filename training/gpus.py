"""The NVIDIA GPUs that are here, and which of them are this process's; JAX is not started."""

import os
from pathlib import Path

from errors import ConfigError


def visible() -> list[str]:
    """Names of the NVIDIA GPUs that a run may see, as CUDA_VISIBLE_DEVICES has them."""
    if "cpu" in os.environ.get("JAX_PLATFORMS", "").split(",")[:1]:
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    files = [path.name for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted((name.removeprefix("nvidia") for name in files), key=int)


def own() -> list[int] | None:
    """Places among the visible GPUs of those that this task of a cluster's job takes.

    JAX gives each task the one GPU whose place is the task's number on its node: of eight GPUs, a
    single task would use the first. Here the tasks of a node share what they see, and each takes
    all that it sees where the cluster has bound it to GPUs of its own.

    Returns:
        [] for all of them; None to leave it to JAX.

    Raises:
        ConfigError: the tasks of this node cannot have equally many.
    """
    task = _task()
    if task is None or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    (place, tasks), found = task, len(visible())
    bound = 0 < found < int(os.environ.get("SLURM_GPUS_ON_NODE", tasks))
    if tasks == 1 or bound:
        return []
    if not found:  # none, or not NVIDIA's
        return None
    each, rest = divmod(found, tasks)
    if rest:
        raise ConfigError(
            f"--coordinator=auto: {tasks} tasks cannot share the {found} GPUs of this node alike: "
            "the tasks of a node must be a divisor of their number."
        )
    return list(range(place * each, (place + 1) * each))


def _task() -> tuple[int, int] | None:
    """Which task of its node this is, of how many, as Open MPI or Slurm says."""
    env = os.environ
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in env:
        return int(env["OMPI_COMM_WORLD_LOCAL_RANK"]), int(env["OMPI_COMM_WORLD_LOCAL_SIZE"])
    if "SLURM_GTIDS" in env:
        return int(env["SLURM_LOCALID"]), len(env["SLURM_GTIDS"].split(","))
    return None
