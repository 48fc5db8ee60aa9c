"""The parts of benchmarks/gpu.py; each runs in a process of its own.

  python -m benchmarks.gpu_parts transformer_seq2seq [--tiny]

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

from benchmarks import harness, ours
from benchmarks.gpu_workloads import FULL, TINY, utilisation
from benchmarks.workloads import Workload

ONE_DEVICE = {**ours.PMAP, "num_devices": 1}
ROUNDS, PER_TURN = 10, 4
NOT_KNOWN = "not known"


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


def our_memory() -> str:
    """The most memory that JAX held on the first device, all of this process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return NOT_KNOWN if peak is None else f"{peak / 2**30:.2f} GiB"


def our_side(workload: Workload, where: Mapping[str, Any] = ONE_DEVICE) -> tuple[Side, int, str]:
    """(our step, its model FLOPs, a note on its compilation)."""
    step, began = ours.train_step(workload, where), time.perf_counter()
    step()
    note = f"{where['strategy']}: first step after {time.perf_counter() - began:.1f} s"
    devices = where["num_devices"] or jax.device_count()
    return Side(step, our_memory, devices), step.model_flops(), note


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
    step = build.step_for(workload, torch.compile(model) if compiled else model, device, bf16=True)

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
    workload: Workload, sides: Mapping[str, Side], flops: int, peer: str, best: str, tiny: bool
) -> dict[str, Any]:
    """Times the sides in turns; the result is how many times faster `best` is than `peer`."""
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
        low, middle, high = harness.quartiles(timing.ratios(peer, best))
        row |= {"value": middle, "spread": (low, high)}
    return row


def against_torch(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """Our step and PyTorch's on one device."""
    ours_here, flops, note = our_side(workload)
    sides, notes, problem = {"ours": ours_here}, [note], torch_problem()
    if problem:
        notes.append(f"PyTorch skipped: {problem}")
    else:
        # torch.compile would unroll the decoder's loop over time: minutes of compilation.
        compiled = not tiny and workload.model["name"].startswith("transformer")
        sides["PyTorch"] = torch_side(workload, compiled)
        notes.append("PyTorch: " + ("compiled" if compiled else "not compiled") + ", autocast")
    return [timed_row(workload, sides, flops, "PyTorch", "ours", tiny)], notes


def pmap_and_mesh(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """Both strategies on all devices."""
    (pmap, flops, one), (mesh, _, other) = (
        our_side(workload, where) for where in (ours.PMAP, ours.MESH)
    )
    sides = {"pmap": pmap, "mesh": mesh}
    return [timed_row(workload, sides, flops, "pmap", "mesh", tiny)], [one, other]


def fused_attention(workload: Workload, tiny: bool) -> tuple[list[dict], list[str]]:
    """The fused attention against the one that can return its weights."""
    (plain, flops, one), (fused, _, other) = (
        our_side(workload.changed(attention=name)) for name in ("dot_product", "fused")
    )
    sides = {"dot_product": plain, "fused": fused}
    return [timed_row(workload, sides, flops, "dot_product", "fused", tiny)], [one, other]


PARTS: dict[str, tuple[Callable[..., tuple[list[dict], list[str]]], str]] = {
    "transformer_seq2seq": (against_torch, "transformer_seq2seq"),
    "transformer_lm": (against_torch, "transformer_lm"),
    "lstm_attention": (against_torch, "lstm_attention"),
    "pmap_and_mesh": (pmap_and_mesh, "transformer_seq2seq"),
    "fused_attention": (fused_attention, "transformer_lm"),
}


def main() -> int:
    """Runs one part and prints what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    function, name = PARTS[options.part]
    workload = (TINY if options.tiny else FULL)[name]
    rows, notes = function(workload.changed(dtype="bfloat16", dropout_rate=0.0), options.tiny)
    print(json.dumps({"rows": rows, "notes": notes, "device": jax.devices()[0].device_kind}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
