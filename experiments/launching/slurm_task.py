"""What each process of a Slurm job does: train, and put the job back in the queue if it must.

A module of its own, because a job imports it before anything else, and should not wait for JAX.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from errors import Preempted, SeqlabError
from training.checkpoint_folder import CheckpointFolder

FRUITLESS = 3  # restarts that saved nothing new, after which a run has failed
PATIENCE = 60.0  # seconds until Slurm has ended a job that it puts back


class Task(NamedTuple):
    """One run of train.py.

    Attributes:
        command: of train.py.
        log: file to which it adds what it says.
        folder: the run directory.
        state: file that keeps which restart of the job was the last to find a new checkpoint.
    """

    command: list[str]
    log: str
    folder: str
    state: str

    def __call__(self) -> int:
        """Runs the command.

        Raises:
            SeqlabError: its exit code is neither 0 nor that of a preempted run; or it is that,
                and the restarts bring nothing, or Slurm refuses another one.
        """
        received: list[int] = []
        started: list[subprocess.Popen] = []

        def forward(number: int, frame: Any) -> None:
            received.append(number)
            for process in started:
                process.send_signal(number)

        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, forward)
        with open(self.log, "ab") as log:
            started.append(subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT))
        code = started[0].wait()
        # After SIGTERM Slurm itself requeues what it preempts, and lets go what scancel ends.
        if code == Preempted.exit_code and signal.SIGTERM not in received:
            self._requeue()
        elif code:
            raise SeqlabError(f"exit code {code}, see {self.log}")
        return code

    def _requeue(self) -> None:
        """Puts the job back in the queue, which ends it here.

        Each task may be the only one whose run asks for it: of several calls Slurm refuses all but
        one.
        """
        if self._fruitless() >= FRUITLESS:
            raise SeqlabError(f"{FRUITLESS} restarts saved nothing new, see {self.log}")
        # The restart count is Slurm's own; an array's element has a number of its own too.
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        time.sleep(PATIENCE)  # to be ended by Slurm: an exit would look like the end of the job
        raise SeqlabError(f"the job was not put back in the queue: {said.strip()}")

    def _fruitless(self) -> int:
        """Restarts of the job since the last one that found a new checkpoint; the same for all."""
        step = max(CheckpointFolder(Path(self.folder, "checkpoints")).steps(), default=-1)
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        now = {"job": os.environ["SLURM_JOB_ID"], "step": step, "restart": restart}
        state = Path(self.state)
        try:
            before = json.loads(state.read_text())
            if (before["job"], before["step"]) == (now["job"], step):
                return restart - before["restart"]
        except (OSError, ValueError, KeyError, TypeError):  # the first time, or cut short
            pass
        state.write_text(json.dumps(now))
        return 0
