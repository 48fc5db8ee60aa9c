"""A real Slurm of one node: its own ports, keys and files, in a folder that a test gives."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SECONDS = 60.0  # until a daemon answers


class Slurm:
    """The daemons; a context manager. Commands find them by the variable SLURM_CONF.

    Args:
        folder: for everything that they write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        conf = CONF.format(
            host=host, user=getpass.getuser(), ports=free_ports(2), folder=self.folder
        )
        self.conf = self.folder / "slurm.conf"
        self.conf.write_text(conf)
        os.environ["SLURM_CONF"] = str(self.conf)
        try:
            names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
            files = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
            seed = f"--seed-file={self.folder}/munge.seed"
            self._start("munged", "--foreground", "--force", *files, seed)
            wait_for((self.folder / "munge.socket").exists, "munged")
            self._start("slurmctld", "-D", "-f", str(self.conf))
            self._start("slurmd", "-D", "-f", str(self.conf), "-N", host)
            wait_for(lambda: "idle" in output("sinfo", "--noheader", "--format=%t"), "slurmd")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            output("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
            output("scancel", f"--user={getpass.getuser()}")
            wait_for(lambda: not output("squeue", "--noheader"), "the jobs to end")
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        os.environ.pop("SLURM_CONF", None)

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name)
        with (self.folder / f"{name}.out").open("wb") as file:
            self._daemons.append(
                subprocess.Popen([program, *arguments], stdout=file, stderr=subprocess.STDOUT)
            )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def output(*command: str) -> str:
    """What a command of Slurm says."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_for(condition, what: str, seconds: float = SECONDS) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.05)
