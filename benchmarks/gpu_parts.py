"""The parts of benchmarks/gpu.py; each runs in a process of its own.

  python -m benchmarks.gpu_parts gpt2_small [--tiny] [--cache=FOLDER]

The last line of standard output is JSON: {"rows": [...], "notes": [...]}.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# The frameworks share the memory of the device, and each is to say what it needs.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from benchmarks import gpu_parity, harness, ours
from benchmarks.gpu_workloads import FULL, TINY, utilisation
from benchmarks.workloads import Workload
from training import compilation

ONE_DEVICE = {**ours.PMAP, "num_devices": 1}
ROUNDS, PER_TURN = 10, 4
NOT_KNOWN = "not known"
PEER = "PyTorch"


@dataclasses.dataclass(frozen=True)
class Side:
    """What is timed under a name.

    Attributes:
        work: one update, waited for.
        memory: says how much of the device's memory it took.
        num_devices: that work on it.
    """

    work: Callable[[], None]
    memory: Callable[[], str]
    num_devices: int = 1


def our_bytes(name: str) -> int:
    """What JAX knows of the memory of the first device, such as "peak_bytes_in_use"; else 0."""
    return (jax.local_devices()[0].memory_stats() or {}).get(name, 0)


def our_side(workload: Workload, where: Mapping[str, Any] = ONE_DEVICE) -> tuple[Side, int, str]:
    """(our step, its model FLOPs, a note on its compilation).

    Its memory is what the peak of this process then has above what was there before: of
    several sides the one that needs least comes first.
    """
    before, began = our_bytes("bytes_in_use"), time.perf_counter()
    step = ours.train_step(workload, where)
    step()
    note = f"{where['strategy']}: first step after {time.perf_counter() - began:.1f} s"
    peak = our_bytes("peak_bytes_in_use")
    memory = f"{(peak - before) / 2**30:.2f} GiB" if peak else NOT_KNOWN
    devices = where["num_devices"] or jax.device_count()
    return Side(step, lambda: memory, devices), step.model_flops(), note


def torch_problem() -> str:
    """Why PyTorch cannot be compared with here; empty if it can."""
    if not harness.has("torch"):
        return "it is not installed"
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "it does not see the GPU"
    return ""


def torch_side(workload: Workload, compiled: bool) -> Side:
    """The peer's step on the GPU if there is one."""
    import torch

    from benchmarks.peers import build

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build.model_for(workload).to(device)
    torch.set_float32_matmul_precision("high")  # TF32, as JAX has it
    step = build.step_for(workload, model, device, bf16=True, compiled=compiled)

    def work() -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    def memory() -> str:
        if device != "cuda":
            return NOT_KNOWN
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"

    return Side(work, memory)


def timed_row(
    workload: Workload, sides: Mapping[str, Side], flops: int, peer: str, tiny: bool
) -> dict[str, Any]:
    """Times the sides in turns; the result is how many times faster the fastest of the others
    is than `peer`."""
    work = {name: side.work for name, side in sides.items()}
    rounds, per_turn = (2, 1) if tiny else (ROUNDS, PER_TURN)
    timing = harness.alternate(work, rounds, per_turn=per_turn)
    kind, columns = jax.devices()[0].device_kind, {}
    for name, side in sides.items():
        seconds = timing.median(name)
        columns[name] = (
            f"{1e3 * seconds:.2f} ms, {workload.num_tokens / seconds:,.0f} tokens/s, "
            f"MFU {utilisation(flops, seconds, kind, side.num_devices)}, "
            f"memory {side.memory()}"
        )
    row: dict[str, Any] = {"what": f"{workload.title}, bfloat16", "columns": columns}
    if peer in sides:
        best = min(sides.keys() - {peer}, key=timing.median)
        low, middle, high = harness.quartiles(timing.ratios(peer, best))
        row |= {"value": middle, "spread": (low, high)}
    return row


def against_torch(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """Our step and PyTorch's on one device; of an LSTM with cuDNN's kernel, too."""
    ours_here, flops, note = our_side(workload)
    sides, notes, problem = {"ours": ours_here}, [note], torch_problem()
    recurrent = workload.model["name"] == "recurrent_seq2seq"
    if recurrent and jax.default_backend() == "gpu":
        fast = workload.changed(dtype="float32", kernel="cudnn")
        sides["ours, cuDNN"], _, note = our_side(fast)
        notes.append(f"cuDNN in float32 with TF32, {note}")
    if problem:
        notes.append(f"PyTorch skipped: {problem}")
    else:
        # torch.compile would unroll the decoder's loop over time: minutes of compilation.
        compiled = not tiny and not recurrent
        sides[PEER] = torch_side(workload, compiled)
        notes.append("PyTorch: " + ("compiled" if compiled else "not compiled") + ", autocast")
    row = timed_row(workload, sides, flops, PEER, tiny)
    row["goal"] = None if tiny else 1.0
    return [row], notes


def pmap_and_mesh(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """Both strategies on all devices."""
    (pmap, flops, one), (mesh, _, other) = (
        our_side(workload, where) for where in (ours.PMAP, ours.MESH)
    )
    sides = {"pmap": pmap, "mesh": mesh}
    return [timed_row(workload, sides, flops, "pmap", tiny)], [one, other]


def fused_attention(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """The fused attention against the one that can return its weights."""
    (fused, _, one), (plain, flops, other) = (
        our_side(workload.changed(attention=name)) for name in ("fused", "dot_product")
    )
    sides = {"fused": fused, "dot_product": plain}
    return [timed_row(workload, sides, flops, "dot_product", tiny)], [one, other]


def parity(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """Each fast path against the plain one; see gpu_parity.py."""
    return gpu_parity.measure(tiny)


PARTS: dict[str, tuple[Callable[..., tuple[list[dict], list[str]]], str]] = {
    "gpt2_small": (against_torch, "gpt2_small"),
    "transformer_base": (against_torch, "transformer_base"),
    "bert_base": (against_torch, "bert_base"),
    "lstm_attention": (against_torch, "lstm_attention"),
    "parity": (parity, "gpt2_small"),
    "fused_attention": (fused_attention, "gpt2_small"),
    "pmap_and_mesh": (pmap_and_mesh, "transformer_base"),
}


def main() -> int:
    """Runs one part and prints what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--cache", help="folder for compiled programs")
    options = parser.parse_args()
    if options.cache:
        compilation.keep_compiled(options.cache)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{options.cache}/inductor")
    function, name = PARTS[options.part]
    workload = (TINY if options.tiny else FULL)[name]
    rows, notes = function(workload.changed(dtype="bfloat16", dropout_rate=0.0), options.tiny)
    print(json.dumps({"rows": rows, "notes": notes, "device": jax.devices()[0].device_kind}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
