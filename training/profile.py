"""A trace of some training steps, to look at in TensorBoard or Perfetto.

`train.py --profile=10:14` keeps one of the steps 10 to 14, counted from 1, in RUN/profile:
`tensorboard --logdir=RUN/profile` (with its plugin `tensorboard-plugin-profile`) shows it, and
so does ui.perfetto.dev with the `perfetto_trace.json.gz` in it. What stands in the trace: host
threads, XLA's operations, and `train` around the start of each step.
"""

import contextlib
import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from errors import ConfigError
from training import distributed
from training.checkpoint_folder import CheckpointFolder
from training.run_directory import RunDirectory

RANGE = re.compile(r"([1-9][0-9]{0,8}):([1-9][0-9]{0,8})")


def steps_of(text: str) -> tuple[int, int]:
    """The first and the last step of FIRST:LAST, (0, 0) of "".

    Raises:
        ConfigError: it is something else.
    """
    if not text:
        return 0, 0
    found = RANGE.fullmatch(text)
    if not found or int(found[1]) > int(found[2]):
        raise ConfigError(
            f"config.profile (--profile) must be FIRST:LAST, steps counted from 1, got {text!r}."
        )
    return int(found[1]), int(found[2])


def check_range(settings: dict[str, Any], run: RunDirectory) -> None:
    """Says which steps will be traced where that is not the whole range.

    Raises:
        ConfigError: none of them, and the run was not started with this range before: one that
            is put back in the queue may be beyond it.
    """
    (first, last), num_steps = steps_of(settings["profile"]), settings["num_steps"]
    if not first:
        return
    done = max(CheckpointFolder(run.checkpoints).steps(), default=0)
    begin, end = max(first, done + 1), min(last, num_steps)
    left = f"{done} of {num_steps} steps are done" if done else f"there are {num_steps} steps"
    if begin > end:
        if (run.read_config() or {}).get("profile") == settings["profile"]:
            return
        raise ConfigError(f"config.profile (--profile) {first}:{last} has no step to come: {left}.")
    if (begin, end) != (first, last) and distributed.is_first():
        print(f"--profile={first}:{last} traces steps {begin} to {end}: {left}.", file=sys.stderr)


class Profiler:
    """Keeps the trace of a run.

    Args:
        steps: config.profile.
        folder: where the trace goes, RUN/profile.
    """

    def __init__(self, steps: str, folder: Path) -> None:
        self._first, self._last = steps_of(steps if distributed.is_first() else "")
        self._folder, self._tracing = folder, False

    def step(self, step: int) -> AbstractContextManager:
        """Around the start of a step, the number of which is that of the steps done after it."""
        if not self._first <= step <= self._last:
            return contextlib.nullcontext()
        if not self._tracing:
            self._tracing = True
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # each call of Python: huge, and slow to write
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def done(self, step: int) -> None:
        """The devices have done this step; the last one ends the trace."""
        if step >= self._last:
            self.stop()

    def stop(self) -> None:
        """Writes the trace of the steps so far, if there is one."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
