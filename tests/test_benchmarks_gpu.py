"""The GPU command without a GPU: its parts in tiny shapes, what they are compared by, and what
they would hand to cuDNN.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import models
from analysis import chips
from benchmarks import gpu, gpu_parity, gpu_parts, gpu_workloads, harness, ours
from models.attention import dot_product_attention, fused_attention
from training import flops

REPO = Path(__file__).resolve().parent.parent


QUICK_PART = "gpt2_small"


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=() if part == QUICK_PART else pytest.mark.heavy)
        for part in gpu_parts.PARTS
    ],
)
def test_each_part_of_the_gpu_command_runs_tiny(part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_parts", part, "--tiny"])
    assert gpu_parts.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows, notes = gpu.table({part: result})
    print(harness.render(rows), notes)
    if part == "parity":
        assert len(rows) == 8
        assert all(row.reached for row in rows)
        return
    assert len(rows) == 1
    cells = rows[0].cells()
    assert "MFU" in "".join(cells.values())
    assert "memory" in "".join(cells.values())
    compared = {"pmap", "mesh"} <= cells.keys() or {"dot_product", "fused"} <= cells.keys()
    has_torch = gpu_parts.torch_problem() == ""
    assert ("PyTorch" in cells) == (has_torch and not compared)
    assert (rows[0].value is not None) == (has_torch or compared)
    assert ("PyTorch skipped: it is not installed" in notes[0]) == (not has_torch and not compared)


@pytest.mark.heavy
def test_gpu_command_runs_a_part_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--no_save"]
    command += ["--parts=fused_attention", f"--output={tmp_path / 'found.json'}"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "fused_attention: done" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["fused_attention"]["device"] == jax.devices()[0].device_kind


PROBLEMS = [
    ("import time; time.sleep(60)", "stopped after its limit of 1 s"),
    ("print('x'); raise ValueError('out of memory')", "left with 1: ValueError: out of memory"),
    ("print('no result')", "did not print its result"),
    ("pass", "did not print its result"),
]


@pytest.mark.parametrize(("program", "sentence"), PROBLEMS, ids=[p[1][:12] for p in PROBLEMS])
def test_a_part_that_fails_leaves_a_sentence(program, sentence):
    found = gpu.run_part([sys.executable, "-c", program], limit_s=1.0 if "sleep" in program else 60)
    assert found == {"problem": sentence}
    good = {"rows": [{"what": "a", "columns": {}}], "notes": ["n"], "device": "cpu"}
    rows, notes = gpu.table({"bad": found, "good": good})
    assert [row.what for row in rows] == ["bad", "a"]
    assert sentence in harness.render(rows)
    assert notes == ["good, on cpu: n."]


def test_parts_fit_into_eight_minutes():
    assert set(gpu.LIMITS_S) == set(gpu_parts.PARTS)
    assert sum(gpu.LIMITS_S.values()) < 8 * 60 - 10


def test_utilisation_is_a_share_of_the_peak_of_the_device():
    assert chips.gpu_flops("NVIDIA H200") == 989e12
    assert chips.gpu_flops("NVIDIA H100 PCIe") == 756e12
    assert chips.gpu_flops("NVIDIA L40S") == 362e12
    assert chips.gpu_flops("NVIDIA L40") is None  # no L4
    assert chips.gpu_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert gpu_workloads.utilisation(989e12, 4.0, "NVIDIA H200", num_devices=2) == "12.5 %"
    assert gpu_workloads.utilisation(3e12, 1.0, "cpu").startswith("3 TFLOP/s, peak of 'cpu' not")


def test_a_part_that_is_stopped_takes_its_helpers_along(tmp_path):
    path = tmp_path / "helper"
    helper = f"import time, pathlib; time.sleep(2); pathlib.Path({str(path)!r}).touch()"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {helper!r}])\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    gpu.run_part([sys.executable, "-c", program], limit_s=0.5)
    assert time.monotonic() - began < 2
    time.sleep(2.5)
    assert not path.exists()


@pytest.mark.parametrize("has_bias", [False, True])
def test_parity_tells_a_path_that_computes_something_else(has_bias, monkeypatch):
    cases = gpu_parity.attention_cases(2, 8)
    mask = cases["causal with a bias" if has_bias else "packed, causal"][0]
    assert gpu_parity.attention(mask, has_bias, (2, 8, 2, 8)) < gpu_parity.TOLERANCES["attention"]

    def deaf(q, k, v, mask, scale=None, bias=None):
        return dot_product_attention(q, k, v, cases["both ways"][0], scale, bias)

    monkeypatch.setattr(gpu_parity, "fused_attention", deaf)
    assert gpu_parity.attention(mask, has_bias, (2, 8, 2, 8)) > 0.2


# ------------------------------------------------------------------ cuDNN


@pytest.fixture
def hopper(monkeypatch):
    """Makes JAX trace as on a GPU; what is traced can be lowered for CUDA, and not run."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device = SimpleNamespace(compute_capability="9.0")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)


def lowered(function, *args) -> str:
    """The program as it would go to XLA on a GPU."""
    return jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


# Of each tiny workload: how many layers look with a mask, which is a bias there, and how many
# without one.
CALLS = {"gpt2_small": (0, 2), "bert_base": (0, 2), "transformer_base": (4, 2)}


@pytest.mark.parametrize("name", CALLS)
def test_training_steps_hand_attention_to_cudnn(name, hopper):
    workload = gpu_workloads.TINY[name].changed(dtype="bfloat16", dropout_rate=0.0)
    task, batch = ours.task_of(workload), workload.batch()

    def loss(attention):
        block = {**workload.model, "attention": attention}
        model = models.build(block, workload.vocab_size)
        params = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]

        def of(params):
            sums = task.loss(model, {"params": params}, batch, jax.random.key(0), train=True)
            return sums["loss"][0]

        return of, params

    fused, plain = loss("fused"), loss("dot_product")
    text = lowered(jax.grad(fused[0]), fused[1])
    for suffix in ("", "Backward"):
        kernels = (rf"fmha{kind}{suffix}\b" for kind in ("ScaleBiasSoftmax", "Softmax"))
        assert tuple(len(re.findall(kernel, text)) for kernel in kernels) == CALLS[name]
    assert flops.forward_flops(*fused) == flops.forward_flops(*plain)
    assert "fmha" not in lowered(jax.grad(plain[0]), plain[1])


UNFIT = {
    "float32": ((2, 8, 2, 8), jnp.float32),
    "heads of 4": ((2, 8, 2, 4), jnp.bfloat16),
    "heads of 256": ((2, 8, 2, 256), jnp.bfloat16),
    "odd rows with a mask": ((2, 7, 2, 8), jnp.bfloat16),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_cudnn_does_not_take_is_left_to_xla(case, hopper):
    shape, dtype = UNFIT[case]
    q = jax.ShapeDtypeStruct(shape, dtype)
    mask = gpu_parity.attention_cases(*shape[:2])["packed, causal"][0]
    assert "fmha" not in lowered(lambda *qkv: fused_attention(*qkv, mask)[0], q, q, q)
    good = jax.ShapeDtypeStruct((2, 8, 2, 8), jnp.bfloat16)
    mask = gpu_parity.attention_cases(2, 8)["packed, causal"][0]
    text = lowered(lambda *qkv: fused_attention(*qkv, mask)[0], good, good, good)
    assert "fmha" in text
    assert '"CAUSAL"' in text.replace("\\22", '"')
