"""Runs as JobSets on a cluster with Kueue: manifests are written, and kubectl is left to people."""

import argparse
import hashlib
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import registry
from errors import ConfigError
from experiments.launching import manifest_schema
from experiments.launching.plan import Run
from experiments.launching.status import Board
from experiments.translate import whole_number
from training.files import storage_errors, write_atomic

FOLDER = "kubernetes"  # below --out
RUNS = "/runs"  # where a pod finds the volume that keeps the runs
PORT = 8476
PATIENCE = 1800  # seconds that a node waits for the others, which may still pull the image
NODE_POOL = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
GIVEN_UP = (64, 65, 70)  # exit codes that another start would only repeat
CHIPS_PER_NODE = 4
# Names of GKE's node pools, and of TPUs the number of axes of a topology.
GPUS = (
    *("nvidia-tesla-t4", "nvidia-l4", "nvidia-tesla-a100", "nvidia-a100-80gb"),
    *("nvidia-h100-80gb", "nvidia-h100-mega-80gb", "nvidia-h200-141gb", "nvidia-b200"),
)
TPUS = {
    "tpu-v4-podslice": 3,
    "tpu-v5-lite-podslice": 2,
    "tpu-v5p-slice": 3,
    "tpu-v6e-slice": 2,
}


class Pool(NamedTuple):
    """The nodes of one run.

    Attributes:
        resource: what they have, by its name in Kubernetes.
        per_node: how many of it.
        nodes: how many nodes.
        labels: by which they are chosen.
    """

    resource: str
    per_node: int
    nodes: int
    labels: Mapping[str, str]

    @property
    def is_tpu(self) -> bool:
        return self.resource == "google.com/tpu"


def pool_of(accelerator: str, nodes: int) -> Pool:
    """The nodes that --accelerator and --nodes mean.

    Args:
        accelerator: "nvidia-h100-80gb:8" (GPUs on each node; "gpu:8" on any kind of node), or
            "tpu-v5p-slice:2x2x4" (the topology, which decides the number of nodes).

    Raises:
        ConfigError: an unknown name, or a number or topology that is none.
    """
    name, _, size = accelerator.partition(":")
    if name in TPUS:
        axes = [int(part) for part in size.split("x") if part.isascii() and part.isdecimal()]
        if size != "x".join(map(str, axes)) or len(axes) != TPUS[name] or 0 in axes:
            example = "x".join("2" * TPUS[name])
            raise ConfigError(
                f"--accelerator: {name} needs a topology such as {example}, got {size!r}."
            )
        chips = math.prod(axes)
        if nodes > 1 or (chips > CHIPS_PER_NODE and chips % CHIPS_PER_NODE):
            reason = "its nodes follow from the topology: leave --nodes out"
            rest = f"{chips} chips are no multiple of the {CHIPS_PER_NODE} of a node"
            raise ConfigError(f"--accelerator {accelerator}: {reason if nodes > 1 else rest}.")
        labels = {
            "cloud.google.com/gke-tpu-accelerator": name,
            "cloud.google.com/gke-tpu-topology": size,
        }
        per_node = min(chips, CHIPS_PER_NODE)
        return Pool("google.com/tpu", per_node, chips // per_node, labels)
    if name not in ("gpu", *GPUS):
        raise ConfigError(f"--accelerator: {registry.unknown('kind', name, ('gpu', *GPUS, *TPUS))}")
    if not (size.isascii() and size.isdecimal() and int(size)):
        raise ConfigError(f"--accelerator: {name} needs GPUs on a node, as {name}:8, got {size!r}.")
    labels = {} if name == "gpu" else {"cloud.google.com/gke-accelerator": name}
    return Pool("nvidia.com/gpu", int(size), nodes, labels)


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of this executor."""
    add = group.add_argument
    add("--image", help="container whose working directory is this repository")
    add("--accelerator", metavar="KIND:SIZE", help="nvidia-h100-80gb:8, tpu-v5p-slice:2x2x4, ...")
    add("--queue", default="seqlab", help="Kueue's LocalQueue (seqlab)")
    add("--namespace", default="default", help="of queue, claim and runs (default)")
    add("--claim", default="seqlab", help="PersistentVolumeClaim that keeps the runs (seqlab)")
    add("--folder", help="of the runs on the claim (OUT's last word and a digest of its path)")
    add("--restarts", type=whole_number(0), default=100, help="of a run at most (100)")


def check(options: argparse.Namespace) -> None:
    """Refuses what makes no manifest; raises ConfigError."""
    for name in ("image", "accelerator"):
        if not getattr(options, name):
            raise ConfigError(f"--executor=kubernetes needs --{name}.")
    if options.folder is not None and not re.fullmatch(r"\w[\w.-]*", options.folder, re.ASCII):
        raise ConfigError(f"--folder must be one word, as gpt-2, got {options.folder!r}.")
    pool_of(options.accelerator, options.nodes)


def execute(todo: Sequence[Run], out: Path, options: argparse.Namespace, board: Board) -> bool:
    """Writes the manifests and says how to apply them; returns that the runs are in other hands.

    Raises:
        ConfigError: a manifest is not valid.
        StorageError: it cannot be written.
    """
    pool, folder = pool_of(options.accelerator, options.nodes), out / FOLDER
    at_once = options.jobs or len(todo)
    files = {
        "runs.yaml": [jobset(run, out, pool, options) for run in todo],
        "queue.yaml": queue(pool, at_once, options),
    }
    texts = {name: rendered(manifests) for name, manifests in files.items()}
    for name, text in texts.items():
        with storage_errors("write", folder / name):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / name, text)
    print("Once, by whoever looks after the cluster:", file=sys.stderr)
    print(shlex.join(["kubectl", "apply", f"--filename={folder / 'queue.yaml'}"]))
    print(f"Runs ({len(todo)}), which wait in the queue for room:", file=sys.stderr)
    print(shlex.join(["kubectl", "apply", f"--filename={folder / 'runs.yaml'}"]))
    return True


def rendered(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Checked manifests as YAML; raises ConfigError."""
    for manifest in manifests:
        manifest_schema.check(manifest)
    return yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=True)


def digest_of(out: Path) -> str:
    """What tells a launch from others into a folder of the same name."""
    return hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:6]


def jobset_name(run: Run, out: Path) -> str:
    """A run's name as Kubernetes wants it, with room for what it puts behind it."""
    words, _, digest = run.name.lower().rpartition("-")
    plain = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return f"run-{plain[:25].strip('-')}-{digest}-{digest_of(out)}"


def jobset(run: Run, out: Path, pool: Pool, options: argparse.Namespace) -> dict[str, Any]:
    """The manifest of a run.

    Whatever fails the pods of a run restarts all of them, and they go on from the last checkpoint;
    but what would only be repeated (GIVEN_UP) ends it.
    """
    name = jobset_name(run, out)
    slices = NODE_POOL if pool.is_tpu and pool.nodes > 1 else {}  # a slice is one pool of nodes
    rule = {"name": "givenUp", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": {"app": "seqlab", "kueue.x-k8s.io/queue-name": options.queue},
            "annotations": {"seqlab/run": run.name, **slices},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": options.restarts, "rules": [rule]},
            "replicatedJobs": [
                {
                    "name": "train",
                    "replicas": 1,
                    "template": {"spec": job(name, run, out, pool, options)},
                }
            ],
        },
    }


def job(name: str, run: Run, out: Path, pool: Pool, options: argparse.Namespace) -> dict[str, Any]:
    """A pod on each node, none of which goes on without the others."""
    given_up = {"containerName": "train", "operator": "In", "values": list(GIVEN_UP)}
    return {
        "parallelism": pool.nodes,
        "completions": pool.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": given_up}]},
        "template": {"spec": pod(name, run, out, pool, options)},
    }


def pod(name: str, run: Run, out: Path, pool: Pool, options: argparse.Namespace) -> dict[str, Any]:
    """One process of a run, on one node, with the volume of all runs."""
    volumes = [{"name": "runs", "persistentVolumeClaim": {"claimName": options.claim}}]
    mounts = [{"name": "runs", "mountPath": RUNS}]
    if not pool.is_tpu:  # NCCL passes data between the GPUs of a node through it
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    place = Path(RUNS, options.folder or f"{out.absolute().name}-{digest_of(out)}")
    container = {
        "name": "train",
        "image": options.image,
        "command": ["python", "train.py", *run.arguments(place), *coordinator(name, pool)],
        "ports": [{"containerPort": PORT}],
        "resources": {"limits": {pool.resource: pool.per_node}},
        "volumeMounts": mounts,
    }
    found: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 300}
    if pool.labels:
        found["nodeSelector"] = dict(pool.labels)
    return found | {"containers": [container], "volumes": volumes}


def coordinator(name: str, pool: Pool) -> list[str]:
    """How the processes of a run find each other; the cluster tells those of a TPU."""
    if pool.nodes == 1:
        return []
    patience = f"--coordinator_timeout={PATIENCE}"
    if pool.is_tpu:
        return ["--coordinator=auto", patience]
    return [
        f"--coordinator={name}-train-0-0.{name}:{PORT}",
        f"--num_processes={pool.nodes}",
        "--process_id=$(JOB_COMPLETION_INDEX)",  # Kubernetes fills it in
        patience,
    ]


def queue(pool: Pool, at_once: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Kueue's queue, with room for so many runs at once."""
    version, name = "kueue.x-k8s.io/v1beta2", options.queue
    quota = {"name": pool.resource, "nominalQuota": at_once * pool.nodes * pool.per_node}
    flavor = {"name": name, "resources": [quota]}
    return [
        {
            "apiVersion": version,
            "kind": "ResourceFlavor",
            "metadata": {"name": name},
            "spec": {"nodeLabels": dict(pool.labels)},
        },
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [{"coveredResources": [pool.resource], "flavors": [flavor]}],
            },
        },
        {
            "apiVersion": version,
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": options.namespace},
            "spec": {"clusterQueue": name},
        },
    ]
