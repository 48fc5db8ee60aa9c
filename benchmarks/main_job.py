"""The main job as a user starts it: time to the first step, and peak memory.

  python -m benchmarks.main_job

Start-up is from the start of the process to the first row of metrics, with prepared data: once
with an empty compile cache and once with a full one. Peak memory is the largest resident
set of a whole run: training, validation, checkpoints, and translating the test split.
"""

import dataclasses
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import harness, machine

TITLE = "The main job: start-up and memory"
ROOT = harness.ROOT
CONFIGS = ("configs/translation.py", "configs/translation.py:model=lstm-attention-small")
MEMORY_GOAL_GIB = 3.0
STEPS = 60  # of the run whose memory is taken: all shapes of batches come up
PATIENCE_S = 1800.0

# A process starts with the peak memory of the one that started it, so this one is small.
WITH_PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


class Failed(RuntimeError):
    """train.py ended otherwise than it should."""


@dataclasses.dataclass
class Job:
    """One run of train.py in a folder of its own.

    Args:
        config: as on the command line.
        data_dir: prepared data and the compile cache, kept between runs.
        workdir: new for each run.
        overrides: further arguments.
    """

    config: str
    data_dir: pathlib.Path
    workdir: pathlib.Path
    overrides: tuple[str, ...] = ()

    @property
    def _command(self) -> list[str]:
        command = [sys.executable, "train.py", f"--config={self.config}"]
        command += [f"--workdir={self.workdir}", f"--config.data_dir={self.data_dir}"]
        return [*command, *self.overrides]

    @property
    def _log(self) -> pathlib.Path:
        return self.workdir.with_suffix(".log")

    def _fail(self, what: str) -> Failed:
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return Failed(f"train.py --config={self.config} {what}:\n{text[-2000:]}")

    def seconds_to_first_step(self) -> float:
        """Starts the job, waits for its first row of metrics, and asks it to stop."""
        begin = time.monotonic()
        metrics = self.workdir / "metrics.jsonl"
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                if process.poll() is not None:
                    raise self._fail(f"left with {process.returncode} before its first step")
                if time.monotonic() - begin > PATIENCE_S:
                    raise self._fail("made no step")
                time.sleep(0.01)
            seconds = time.monotonic() - begin
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
            return seconds
        finally:
            process.kill()
            process.wait()

    def peak_gib(self) -> float:
        """Runs the job to its end; its largest resident set in GiB."""
        command = [sys.executable, "-c", WITH_PEAK, *self._command]
        with open(self._log, "wb") as log:
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        if done.returncode:
            raise self._fail(f"left with {done.returncode}")
        unit = 1 if sys.platform == "darwin" else 1024
        return int(done.stdout) * unit / 2**30


def start_up(config: str, folder: pathlib.Path, rounds: int) -> harness.Row:
    """Seconds to the first step, cold and warm, in turns; needs prepared data in `folder`."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(rounds):
        for name, times in seconds.items():
            if name == "cold":
                shutil.rmtree(folder / "data" / "xla", ignore_errors=True)
            workdir = folder / f"{name}-{number}"
            job = Job(config, folder / "data", workdir, ("--config.log_every=1",))
            times.append(job.seconds_to_first_step())
    columns = {
        f"{name} compile cache": f"{statistics.median(times):.1f} s"
        for name, times in seconds.items()
    }
    low, middle, high = harness.quartiles(harness.Timing(seconds).ratios("cold", "warm"))
    return harness.Row(f"start to first step, {config}", columns, middle, (low, high))


def peak_memory(config: str, folder: pathlib.Path) -> harness.Row:
    """Peak resident memory of a short run of all phases."""
    overrides = [f"--config.num_steps={STEPS}"]
    shorter = ("eval_every", "save_every", "optimizer.schedule.warmup_steps")
    overrides += [f"--config.{name}={STEPS // 2}" for name in shorter]
    job = Job(config, folder / "data", folder / "memory", tuple(overrides))
    peak = job.peak_gib()
    what = f"peak memory, {config}"
    return harness.Row(what, {}, peak, goal=MEMORY_GOAL_GIB, at_most=True, unit=" GiB")


def main() -> int:
    """Measures, prints and keeps the table."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--config", nargs="*", default=list(CONFIGS))
    options = parser.parse_args()
    busy = machine.cores_used_by_others()
    rows = []
    for config in options.config:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            rows.append(peak_memory(config, folder))  # prepares the data, too
            rows.append(start_up(config, folder, options.rounds))
    notes = [
        f"Memory: a run of {STEPS} steps with two validations and checkpoints, and beam search"
        " over the test split. Start-up: data prepared, tokenizer trained; the result is cold"
        " over warm."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"error: {error}")
