"""Training in bfloat16 on a GPU, against PyTorch in the same run: under eight minutes.

  python -m benchmarks.gpu            on a machine with one GPU (more are used by two parts)
  python -m benchmarks.gpu --tiny     the same path in tiny shapes, on any machine

Transformer base, GPT-2 small, BERT base and an LSTM with attention: tokens per second, model
FLOPs over the device's peak (MFU), memory; fused attention against plain; pmap and mesh; and
whether each fast path computes what the plain one does. Every part is a process with a time
limit: one that fails or hangs leaves a sentence in place of its rows, and the others go on. What
one part compiles the next finds again; --cache keeps it for another run.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import harness, machine

TITLE = "Training in bfloat16 on a GPU, against PyTorch"
LIMITS_S = {  # start of both frameworks, compilation, and less than half a minute of steps
    "gpt2_small": 90.0,
    "transformer_base": 90.0,
    "bert_base": 80.0,
    "lstm_attention": 75.0,
    "parity": 45.0,
    "fused_attention": 45.0,
    "pmap_and_mesh": 40.0,
}
TINY_LIMIT_S = 240.0  # on any machine, however busy


def run_part(command: Sequence[str], limit_s: float) -> dict[str, Any]:
    """What a part printed as its last line, or {"problem": sentence}."""
    # Files and not pipes: helpers of a part that was ended may hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=printed, stderr=errors, cwd=harness.ROOT, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return {"problem": f"stopped after its limit of {limit_s:.0f} s"}
        finally:
            _end(process)
        for file in (printed, errors):
            file.seek(0)
        lines, said = printed.read().strip().splitlines(), errors.read().strip()
    if code:
        return {"problem": f"left with {code}: {(said or 'no message').splitlines()[-1][:300]}"}
    try:
        return json.loads(lines[-1])
    except (json.JSONDecodeError, IndexError):
        return {"problem": "did not print its result"}


def _end(process: subprocess.Popen) -> None:
    """Ends a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def table(found: dict[str, dict[str, Any]]) -> tuple[list[harness.Row], list[str]]:
    """Rows of all parts, one for each that failed too, and their notes."""
    rows, notes = [], []
    for part, result in found.items():
        if "problem" in result:
            rows.append(harness.Row(part, {"problem": result["problem"]}))
            continue
        rows += [harness.Row(**row) for row in result["rows"]]
        notes.append(f"{part}, on {result['device']}: " + "; ".join(result["notes"]) + ".")
    return rows, notes


def main() -> int:
    """Runs the parts; exit code 1 if one of them has no result."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for any machine")
    parser.add_argument("--parts", default=",".join(LIMITS_S), help="names divided by commas")
    parser.add_argument("--output", type=pathlib.Path, help="file for all results as JSON")
    parser.add_argument("--cache", type=pathlib.Path, help="folder for compiled programs")
    options = parser.parse_args()
    options.no_save |= options.tiny
    for part in options.parts.split(","):
        if part not in LIMITS_S:
            parser.error(f"unknown part {part!r}; known: {', '.join(LIMITS_S)}")
    busy = machine.cores_used_by_others()
    with tempfile.TemporaryDirectory() as folder:
        found = run_parts(options, options.cache or pathlib.Path(folder))
    rows, notes = table(found)
    devices = sorted({result["device"] for result in found.values() if "device" in result})
    harness.report(TITLE, rows, notes, options, busy, on=", ".join(devices))
    return int(any("problem" in result for result in found.values()))


def run_parts(options: argparse.Namespace, cache: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What each part found; after each the file of all results is written anew."""
    found = {}
    for part in options.parts.split(","):
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.gpu_parts", part]
        command += [f"--cache={cache.absolute()}", *["--tiny"] * options.tiny]
        found[part] = run_part(command, TINY_LIMIT_S if options.tiny else LIMITS_S[part])
        outcome = found[part].get("problem", "done")
        print(f"{part}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    sys.exit(main())
