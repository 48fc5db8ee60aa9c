"""Which GPUs a task of a cluster's job takes, from faked environments."""

import argparse

import pytest

from errors import ConfigError
from training import connecting, gpus

SLURM = ("SLURM_LOCALID", "SLURM_GTIDS", "SLURM_GPUS_ON_NODE")
OPEN_MPI = ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SLURM, *OPEN_MPI, "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "")


CASES = [  # what the task sees, what its cluster says, which of them it takes
    pytest.param("0,1,2,3", {"LOCALID": "0", "GTIDS": "5", "GPUS_ON_NODE": "4"}, [], id="alone"),
    pytest.param("0,1,2,3", {"LOCALID": "0", "GTIDS": "2,3"}, [0, 1], id="first-of-two"),
    pytest.param("4,5,6,7", {"LOCALID": "1", "GTIDS": "2,3"}, [2, 3], id="second-of-two"),
    pytest.param("0,1", {"LOCALID": "1", "GTIDS": "0,1", "GPUS_ON_NODE": "2"}, [1], id="one-each"),
    pytest.param("0,1", {"LOCALID": "1", "GTIDS": "0,1", "GPUS_ON_NODE": "4"}, [], id="bound"),
    pytest.param("1", {"LOCALID": "1", "GTIDS": "0,1"}, [], id="bound-to-one"),
    pytest.param("", {"LOCALID": "1", "GTIDS": "0,1"}, None, id="no-gpu"),
    pytest.param("0,1", {}, None, id="no-cluster"),
]


@pytest.mark.parametrize(("visible", "said", "expected"), CASES)
def test_the_tasks_of_a_node_share_its_gpus(
    visible: str, said: dict, expected: list | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert gpus.own() == expected


def test_open_mpi_too_and_who_says_it_himself_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5")
    for name, value in zip(OPEN_MPI, ("2", "3"), strict=True):
        monkeypatch.setenv(name, value)
    assert gpus.own() == [4, 5]
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4")
    with pytest.raises(ConfigError, match="4 tasks cannot share the 6 GPUs of this node alike"):
        gpus.own()
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "1")
    assert gpus.own() is None


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_single_task_of_slurm_is_not_given_one_gpu(
    by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What JAX is told; nothing by hand, where it takes no GPU away."""
    told: dict = {}

    def initialize(**given: object) -> None:
        told.update(given)
        raise KeyboardInterrupt

    for name, value in {"SLURM_LOCALID": "0", "SLURM_GTIDS": "0", "NPROC": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connecting.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(connecting.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(connecting, "_on_abort", lambda *_: None)
    parser = argparse.ArgumentParser()
    connecting.add_process_arguments(parser)
    argv = ["--coordinator=auto"]
    if by_hand:
        argv = ["--coordinator=h:1", "--num_processes=2", "--process_id=0"]
    with pytest.raises(KeyboardInterrupt), connecting.connected(parser.parse_args(argv)):
        pass
    assert told.get("local_device_ids") == (None if by_hand else [])
