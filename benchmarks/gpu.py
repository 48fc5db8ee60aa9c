"""Training in bfloat16 on a GPU, against PyTorch in the same run: under eight minutes.

  python -m benchmarks.gpu            on a machine with one GPU (more are used by two parts)
  python -m benchmarks.gpu --tiny     the same path in tiny shapes, on any machine

Steps per second, model FLOPs over the device's peak (MFU), memory; pmap and mesh; fused
attention. Every part is a process with a time limit: one that fails or hangs leaves a
sentence in place of its row, and the others go on.
"""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import harness, machine

TITLE = "Training in bfloat16 on a GPU, against PyTorch"
LIMITS_S = {  # start of both frameworks, compilation, and less than half a minute of steps
    "transformer_seq2seq": 125.0,
    "transformer_lm": 125.0,
    "lstm_attention": 80.0,
    "pmap_and_mesh": 75.0,
    "fused_attention": 60.0,
}


def run_part(command: Sequence[str], limit_s: float) -> dict[str, Any]:
    """What a part printed as its last line, or {"problem": sentence}."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            cwd=harness.ROOT,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"stopped after its limit of {limit_s:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return {"problem": f"left with {done.returncode}: {last[:300]}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (json.JSONDecodeError, IndexError):
        return {"problem": "did not print its result"}


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
    options = parser.parse_args()
    options.no_save |= options.tiny
    busy, found = machine.cores_used_by_others(), {}
    for part in options.parts.split(","):
        if part not in LIMITS_S:
            parser.error(f"unknown part {part!r}; known: {', '.join(LIMITS_S)}")
    for part in options.parts.split(","):
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.gpu_parts", part]
        found[part] = run_part(command + ["--tiny"] * options.tiny, LIMITS_S[part])
        outcome = found[part].get("problem", "done")
        print(f"{part}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rows, notes = table(found)
    harness.report(TITLE, rows, notes, options, busy)
    return int(any("problem" in result for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
