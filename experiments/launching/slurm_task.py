"""What each process of a Slurm job does: train, and put the job back in the queue if it must.

A module of its own, because a job imports it before anything else, and should not wait for JAX.
"""

import os
import signal
import subprocess
import time
from typing import Any, NamedTuple

from errors import Preempted, SeqlabError


class Task(NamedTuple):
    """One run of train.py.

    Attributes:
        command: of train.py.
        log: file to which it adds what it says.
    """

    command: list[str]
    log: str

    def __call__(self) -> int:
        """Runs the command.

        Raises:
            SeqlabError: its exit code is neither 0 nor that of a preempted run.
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
        """Puts the job back in the queue, which ends it here."""
        if os.environ.get("SLURM_PROCID", "0") == "0":
            # The restart count is Slurm's own; an array's element has a number of its own too.
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        time.sleep(60)  # to be ended by Slurm: an exit would look like the end of the job
