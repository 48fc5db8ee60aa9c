"""Runs all benchmarks of this machine, each in a process of its own.

  python -m benchmarks            (or make bench)
  python -m benchmarks --only=training_step,translation --rounds=5

Further arguments go to each of them. One that fails does not stop the others.
"""

import argparse
import subprocess
import sys

NAMES = (
    "training_step",
    "families",
    "recurrence",
    "translation",
    "generation",
    "pipeline",
    "diagnostics",
    "saving",
    "memory_options",
    "heads",
    "main_job",
)


def main() -> int:
    """Exit code 0 if every benchmark ran."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(NAMES), help="names divided by commas")
    options, rest = parser.parse_known_args()
    failed = []
    for name in options.only.split(","):
        if name not in NAMES:
            parser.error(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *rest]).returncode
        if code:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
