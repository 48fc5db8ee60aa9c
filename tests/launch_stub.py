"""A stand-in for train.py that takes no time: its seed says what happens to it.

  python tests/launch_stub.py --config=... --workdir=RUN --config.seed=9 ...

It keeps the records of a run as train.py does, without JAX.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 4
DIVERGES = 20.0  # a learning rate
DONE, PREEMPTED_ONCE, ALWAYS_PREEMPTED, BAD_DATA, KILLED, ENDLESS, THIRD_ENDLESS = range(1, 8)
ENDLESS_TRIALS = ((ENDLESS, "trial-0000"), (THIRD_ENDLESS, "trial-0002"))


def main(argv: list[str]) -> int:
    """Leaves with the code that train.py would leave with."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from errors import ConfigError
    from training.run_directory import RunDirectory

    given = dict(text.removeprefix("--").partition("=")[::2] for text in argv)
    seed = int(given.get("config.seed", DONE))
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: stops.append(number))
    if seed == BAD_DATA:
        print("error: data.tsv:3: 2 tabs", file=sys.stderr)
        return 65
    run = RunDirectory(given["workdir"])
    try:
        with run.lock():
            run.journal("resume" if run.exists else "start", argv=argv, cores=_cores())
            return work(run, seed, given, stops)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 64


def work(run, seed: int, given: dict[str, str], stops: list[int]) -> int:
    """The steps."""
    starts = sum(entry["event"] in ("start", "resume") for entry in run.read_journal())
    if seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if run.path.name.startswith("trial-"):  # one trial of a search only
        endless = starts == 1 and (seed, run.path.name) in ENDLESS_TRIALS
    else:
        endless = seed == ENDLESS and starts == 1
    rate = float(given.get("config.optimizer.learning_rate", 1))
    if rate > DIVERGES:
        run.journal("stop", code=70)
        return 70
    for step in range(1, STEPS + 1):
        if "config.final_split" in given:  # a trial, which somebody watches
            time.sleep(0.05)
        with (run / "metrics.jsonl").open("a") as file:
            for split in ("train", "validation"):
                row = {"step": step, "split": split, "loss": rate / step, "seconds": step}
                print(json.dumps(row), file=file)
        while endless and not stops:
            time.sleep(0.01)
        if stops or seed == ALWAYS_PREEMPTED or (seed == PREEMPTED_ONCE and starts == 1):
            if seed != ALWAYS_PREEMPTED:
                (run.checkpoints / str(step)).mkdir(parents=True)
                (run.checkpoints / str(step) / "manifest.json").write_text("{}")
            run.journal("stop", code=75)
            print("error: Stopped.", file=sys.stderr)
            return 75
    run.finish({"step": STEPS, "num_steps": STEPS, "scores": {}})
    run.journal("stop", code=0)
    print("test loss 1")
    return 0


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
