"""What a manifest may hold, as far as we write them; everything else is a mistake of ours.

A schema is a dict (a field whose name ends in "!" must be there; "*" stands for any other name), a
list of one schema, a set of values, a pattern of a whole text, or a type. A whole number is above
or equal to 0.
"""

import re
from collections.abc import Mapping
from typing import Any

from errors import ConfigError
from registry import shown

LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# A JobSet's name begins the names of its pods: NAME-train-0-99.
SHORT_NAME = re.compile(r"[a-z]([a-z0-9-]{0,43}[a-z0-9])?")
IMAGE = re.compile(r"[a-z0-9]\S*")
ABSOLUTE = re.compile(r"/\S+")
TEXT = re.compile(r"[^\0]+", re.DOTALL)

RESOURCES = {"nvidia.com/gpu": int, "google.com/tpu": int}
CONTAINER = {
    "name!": NAME,
    "image!": IMAGE,
    "command!": [TEXT],
    "ports": [{"containerPort!": int}],
    "resources!": {"limits!": RESOURCES},
    "volumeMounts!": [{"name!": NAME, "mountPath!": ABSOLUTE}],
}
VOLUME = {
    "name!": NAME,
    "persistentVolumeClaim": {"claimName!": NAME},
    "emptyDir": {"medium": {"Memory"}},
}
POD = {
    "restartPolicy!": {"Never"},  # a Job takes no Always, and its failure policy no OnFailure
    "terminationGracePeriodSeconds!": int,
    "nodeSelector": {"*": LABEL_VALUE},
    "containers!": [CONTAINER],
    "volumes!": [VOLUME],
}
EXIT_CODES = {"containerName!": NAME, "operator!": {"In", "NotIn"}, "values!": [int]}
JOB = {
    "parallelism!": int,
    "completions!": int,
    "completionMode!": {"Indexed"},
    "backoffLimit!": int,
    "podFailurePolicy!": {"rules!": [{"action!": {"FailJob"}, "onExitCodes!": EXIT_CODES}]},
    "template!": {"spec!": POD},
}
RULE = {
    "name!": re.compile("[A-Za-z]+"),
    "action!": {"FailJobSet"},
    "onJobFailureReasons!": [{"PodFailurePolicy"}],
}
FAILURES = {"maxRestarts!": int, "rules": [RULE]}
LABELS = {"app!": LABEL_VALUE, "kueue.x-k8s.io/queue-name!": NAME}
QUOTA = {"name!": set(RESOURCES), "nominalQuota!": int}
KUEUE = {"kueue.x-k8s.io/v1beta2"}

SCHEMAS: dict[str, dict] = {
    "JobSet": {
        "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
        "kind!": {"JobSet"},
        "metadata!": {
            "name!": SHORT_NAME,
            "namespace!": NAME,
            "labels!": LABELS,
            "annotations": {"*": TEXT},
        },
        "spec!": {
            "failurePolicy!": FAILURES,
            "replicatedJobs!": [
                {"name!": NAME, "replicas!": int, "template!": {"spec!": JOB}},
            ],
        },
    },
    "ResourceFlavor": {
        "apiVersion!": KUEUE,
        "kind!": {"ResourceFlavor"},
        "metadata!": {"name!": NAME},
        "spec!": {"nodeLabels": {"*": LABEL_VALUE}},
    },
    "ClusterQueue": {
        "apiVersion!": KUEUE,
        "kind!": {"ClusterQueue"},
        "metadata!": {"name!": NAME},
        "spec!": {
            "namespaceSelector!": {},
            "resourceGroups!": [
                {
                    "coveredResources!": [set(RESOURCES)],
                    "flavors!": [{"name!": NAME, "resources!": [QUOTA]}],
                }
            ],
        },
    },
    "LocalQueue": {
        "apiVersion!": KUEUE,
        "kind!": {"LocalQueue"},
        "metadata!": {"name!": NAME, "namespace!": NAME},
        "spec!": {"clusterQueue!": NAME},
    },
}


def check(manifest: Mapping[str, Any]) -> None:
    """Refuses a manifest that a cluster would refuse, or read as something else.

    Raises:
        ConfigError: it names the field.
    """
    kind = manifest.get("kind")
    if kind not in SCHEMAS:
        raise ConfigError(f"A manifest of kind {kind!r}. Known: {', '.join(SCHEMAS)}.")
    _check(manifest, SCHEMAS[kind], str(kind))
    for one in manifest["spec"].get("replicatedJobs", []):
        _check_job(one["template"]["spec"], f"{kind}.{one['name']}")


def _check_job(job: Mapping[str, Any], path: str) -> None:
    """What no field says alone."""
    pod = job["template"]["spec"]
    if job["parallelism"] != job["completions"]:
        raise ConfigError(f"{path}: parallelism and completions must be equal.")
    volumes = [volume["name"] for volume in pod["volumes"]]
    for container in pod["containers"]:
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        if sorted(mounts) != sorted(volumes):
            raise ConfigError(f"{path}: volumes {volumes} are mounted as {mounts}.")
        if not container["resources"]["limits"]:
            raise ConfigError(f"{path}: resources.limits has no accelerator.")


def _check(value: Any, schema: Any, path: str) -> None:
    if isinstance(schema, dict):
        _check_fields(value, schema, path)
    elif isinstance(schema, list):
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{path} must be a list that is not empty, got {shown(value)}.")
        for i, item in enumerate(value):
            _check(item, schema[0], f"{path}[{i}]")
    elif isinstance(schema, set):
        if value not in schema:
            raise ConfigError(f"{path} must be {' or '.join(sorted(schema))}, got {shown(value)}.")
    elif isinstance(schema, re.Pattern):
        if not isinstance(value, str) or not schema.fullmatch(value):
            raise ConfigError(f"{path} must match {schema.pattern}, got {shown(value)}.")
    elif type(value) is not schema or value < 0:
        raise ConfigError(f"{path} must be a whole number of at least 0, got {shown(value)}.")


def _check_fields(value: Any, schema: Mapping[str, Any], path: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must be a block, got {shown(value)}.")
    fields = {name.removesuffix("!"): schema[name] for name in schema if name != "*"}
    for name in schema:
        if name.endswith("!") and name[:-1] not in value:
            raise ConfigError(f"{path}.{name[:-1]} is missing.")
    for name, item in value.items():
        if name not in fields and "*" not in schema:
            raise ConfigError(f"{path} has no field {name!r}.")
        _check(item, fields.get(name, schema.get("*")), f"{path}.{name}")
