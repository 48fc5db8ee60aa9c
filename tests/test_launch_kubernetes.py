"""Manifests for Kubernetes: as they were reviewed, and checked field by field."""

import copy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_cases import CONFIG, arguments

from errors import ConfigError
from experiments import launch
from experiments.launching import kubernetes, manifest_schema, plan

GOLDEN = Path(__file__).parent / "golden"
POOLS = {"gpu": ("nvidia-h100-80gb:8", 4), "tpu": ("tpu-v5p-slice:2x2x4", 1), "one": ("gpu:1", 1)}
# The digest in a name depends on nothing but the string and its fields.
RUN = plan.Run("gpt-1234abcd", "configs/gpt.py:seed=1", ("--config.num_steps=9",), 9)


def options(nodes: int) -> Namespace:
    return Namespace(
        image="registry.example/seqlab:1",
        nodes=nodes,
        namespace="default",
        queue="seqlab",
        claim="seqlab",
        folder=None,
        restarts=100,
    )


def manifests(name: str) -> list[dict[str, Any]]:
    accelerator, nodes = POOLS[name]
    pool, given = kubernetes.pool_of(accelerator, nodes), options(nodes)
    runs = [kubernetes.jobset(RUN, Path("/here/out"), pool, given)]
    return [*runs, *kubernetes.queue(pool, 2, given)]


@pytest.mark.parametrize("name", POOLS)
def test_the_manifests_are_those_that_were_reviewed(name: str) -> None:
    """To review others: write what `rendered` gives into the file, and read the difference."""
    text = kubernetes.rendered(manifests(name))
    assert text == (GOLDEN / f"kubernetes-{name}.yaml").read_text(encoding="utf-8")


def test_a_launch_writes_them_and_submits_nothing(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    more = ("--executor=kubernetes", "--image=i", "--accelerator=tpu-v5p-slice:2x2x4", "--jobs=1")
    assert launch.main(arguments(out, 1, 2, more=more)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"kubectl apply --filename={out}/kubernetes/queue.yaml",
        f"kubectl apply --filename={out}/kubernetes/runs.yaml",
    ]
    before = (out / "kubernetes/runs.yaml").read_text()
    assert launch.main([f"--out={out}", "--resume"]) == 0
    assert (out / "kubernetes/runs.yaml").read_text() == before
    assert launch.main([f"--out={out}", "--resume", "--queue=other"]) == 0
    assert (out / "kubernetes/runs.yaml").read_text() == before.replace(
        "queue-name: seqlab", "queue-name: other"
    )
    assert launch.main([f"--out={out}", "--resume", "--queue=seqlab"]) == 0
    runs = list(yaml.safe_load_all((out / "kubernetes/runs.yaml").read_text()))
    queue = list(yaml.safe_load_all((out / "kubernetes/queue.yaml").read_text()))
    assert [one["kind"] for one in runs + queue] == [
        *("JobSet", "JobSet", "ResourceFlavor", "ClusterQueue", "LocalQueue")
    ]
    (group,) = queue[1]["spec"]["resourceGroups"]
    assert group["flavors"][0]["resources"][0]["nominalQuota"] == 16
    job = runs[0]["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    digest = kubernetes.digest_of(out)
    assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == 16
    assert f"--config={CONFIG}" in container["command"]
    assert container["command"][3].startswith(
        f"--workdir=/runs/out-{digest}/synthetic-smoke-seed=1-"
    )
    assert runs[0]["metadata"]["name"].endswith(f"-{digest}")


def test_the_folder_on_the_claim_can_be_named() -> None:
    given, pool = options(1), kubernetes.pool_of("gpu:1", 1)
    given.folder = "mine"
    jobset = kubernetes.jobset(RUN, Path("out"), pool, given)
    command = pod_of(jobset)["containers"][0]["command"]
    assert f"--workdir=/runs/mine/{RUN.name}" in command


def test_names_are_short_enough_and_stay_different() -> None:
    runs = plan.make([CONFIG], [], ["seed=0,1", "optimizer.learning_rate=1e-3,3e-4"])
    outs = (Path("a/out"), Path("b/out"))
    names = [kubernetes.jobset_name(run, out) for run in runs for out in outs]
    assert len(set(names)) == 2 * len(runs)
    for name in names:
        assert manifest_schema.SHORT_NAME.fullmatch(name)


BAD_POOLS = [
    ("nvidia-h10-80gb:8", 1, "Did you mean 'nvidia-h100-80gb'?"),
    ("gpu", 1, "needs GPUs on a node, as gpu:8"),
    ("gpu:0", 1, "needs GPUs on a node"),
    ("tpu-v5p-slice:2x2", 1, "needs a topology such as 2x2x2"),
    ("tpu-v6e-slice:4x", 1, "needs a topology such as 2x2"),
    ("tpu-v6e-slice:3x2", 1, "6 chips are no multiple of the 4"),
    ("tpu-v6e-slice:4x4", 2, "leave --nodes out"),
]


def test_a_bad_accelerator_is_one_line(capsys, tmp_path: Path) -> None:
    for accelerator, nodes, said in BAD_POOLS:
        more = ("--executor=kubernetes", "--image=i", f"--accelerator={accelerator}")
        argv = arguments(tmp_path / "out", 1, more=(*more, f"--nodes={nodes}"))
        assert launch.main(argv) == 64
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    bad = ("--executor=kubernetes", "--image=i", "--accelerator=gpu:1", "--folder=../x")
    assert launch.main(arguments(tmp_path / "out", 1, more=bad)) == 64
    assert "--folder must be one word" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    print(f"{len(BAD_POOLS)} bad accelerators")


def job_of(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(jobset: dict) -> dict:
    return job_of(jobset)["template"]["spec"]


# What a person may do wrong in kubernetes.py, each refused by name.
SEEDED: list[tuple[Callable[[dict], Any], str]] = [
    (lambda m: m.update(kind="Jobset"), "kind 'Jobset'"),
    (lambda m: m.update(apiVersion="jobset.x-k8s.io/v1"), "apiVersion"),
    (lambda m: m["metadata"].pop("name"), "metadata.name is missing"),
    (lambda m: m["metadata"].update(name="Run_1"), "metadata.name must match"),
    (lambda m: m["metadata"].update(name="a" * 46), "metadata.name must match"),
    (lambda m: m["metadata"]["labels"].clear(), "labels.app is missing"),
    (lambda m: m["metadata"].update(anotations={}), "no field 'anotations'"),
    (lambda m: m["spec"].update(suspnd=True), "no field 'suspnd'"),
    (lambda m: m["spec"].update(replicatedJobs=[]), "replicatedJobs must be a list"),
    (lambda m: m["spec"]["failurePolicy"].update(maxRestarts="9"), "maxRestarts must be a whole"),
    (lambda m: job_of(m).update(completions=3), "parallelism and completions"),
    (lambda m: job_of(m).update(parallelism=True), "parallelism must be a whole"),
    (lambda m: job_of(m).update(completionMode="NonIndexed"), "completionMode must be Indexed"),
    (lambda m: pod_of(m).update(restartPolicy="Always"), "restartPolicy must be Never"),
    (lambda m: pod_of(m)["nodeSelector"].update(zone="a b"), "nodeSelector.zone must match"),
    (lambda m: pod_of(m)["containers"][0].pop("image"), "image is missing"),
    (lambda m: pod_of(m)["containers"][0].update(image=None), "image must match"),
    (lambda m: pod_of(m)["containers"][0].update(command="python"), "command must be a list"),
    (lambda m: pod_of(m)["containers"][0]["command"].append(8), "command[9] must match"),
    (lambda m: pod_of(m)["containers"][0]["resources"]["limits"].clear(), "no accelerator"),
    (lambda m: pod_of(m)["containers"][0]["resources"].update(limits={"gpu": 8}), "field 'gpu'"),
    (lambda m: pod_of(m)["volumes"].pop(), "volumes"),
    (lambda m: pod_of(m)["volumes"][0].update(name="other"), "are mounted as"),
]


def test_seeded_mistakes_are_refused_by_name() -> None:
    good = manifests("gpu")[0]
    manifest_schema.check(good)
    for number, (spoil, said) in enumerate(SEEDED):
        bad = copy.deepcopy(good)
        spoil(bad)
        with pytest.raises(ConfigError) as caught:
            manifest_schema.check(bad)
        assert said in str(caught.value), (number, str(caught.value))
    print(f"{len(SEEDED)} of {len(SEEDED)} mistakes refused")
