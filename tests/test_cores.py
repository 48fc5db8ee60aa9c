"""The cores of a CPU as devices: searches use all of them, training those that it asks for."""

import json
import os
import subprocess
import sys

import pytest

from training import cores

PROGRAM = """
import json, sys
import jax
from training import cores, parallel
cores.split(int(sys.argv[1]))
block = {"strategy": "pmap", "num_devices": 0, "mesh": (0, 1, 1), "canonical_shards": 0}
trained = [len(parallel.build_strategy({**block, "num_devices": n}).devices) for n in (0, 2)]
print(json.dumps([jax.local_device_count(), *trained]))
"""


@pytest.mark.parametrize(("flags", "expected"), [("", [9, 1, 2]), (f"{cores.FLAG}=4", [4, 4, 2])])
def test_training_takes_one_core_unless_told(flags, expected):
    """Nine devices wanted, more than cores are taken unasked; XLA_FLAGS go first."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, "9"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


TRACED = """
import sys
import jax
from training import cores
cores.split()
jax.profiler.start_trace(sys.argv[1])
jax.numpy.ones(3).sum().block_until_ready()
jax.profiler.stop_trace()
print(jax.devices()[0].platform)
"""


@pytest.mark.tpu_compiler
def test_the_compiler_for_tpus_is_left_out_where_there_is_none(tmp_path):
    """Its profiler would crash the first trace."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    command = [sys.executable, "-c", TRACED, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cpu\n", "")
    assert list(tmp_path.rglob("*.xplane.pb"))
