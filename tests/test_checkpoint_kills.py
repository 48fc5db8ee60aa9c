"""Kills and full disks cost the save that they hit, and no earlier one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import StorageError
from tests.checkpoint_cases import (
    FINGERPRINT,
    assert_restores,
    make_state,
    restore,
    save,
)
from training import checkpoint_folder
from training.checkpoint_reader import good_steps, quiet_orbax
from training.checkpoints import Checkpointer
from training.manifest import Manifest

REPO = Path(__file__).resolve().parent.parent


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it, so the disk stays as it is."""


def test_a_kill_at_any_change_of_names_loses_at_most_that_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing step 3 and dropping step 1: stops at each rename, unlink, write and deletion."""
    real = {"replace": os.replace, "rename": Path.rename, "unlink": Path.unlink}
    real_rmtree, base = shutil.rmtree, tmp_path / "base"
    save(base, 1, 2, 3)
    points = 0
    while True:
        directory = shutil.copytree(base, tmp_path / str(points))
        left = points

        def tick() -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        def stopping(call: Any, tick: Any = tick) -> Any:
            def stop(*args: Any, **kwargs: Any) -> Any:
                tick()
                return call(*args, **kwargs)

            return stop

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping(real["replace"]))
            patch.setattr(Path, "rename", stopping(real["rename"]))
            patch.setattr(Path, "unlink", stopping(real["unlink"]))
            patch.setattr(checkpoint_folder.shutil, "rmtree", stopping(real_rmtree))
            checkpointer = Checkpointer(directory, 2, FINGERPRINT).__enter__()
            killed = False
            try:
                checkpointer.save(3, make_state(3), {"tokens": 300})
                checkpointer.wait()
            except Killed:
                killed = True
            checkpointer._thread.shutdown()
            checkpointer._orbax.close()
        assert_restores(directory, 3)
        assert set(os.listdir(directory)) <= {"1", "2", "3"}
        if not killed:
            break
        points += 1
    print(f"{points} points")
    assert points >= 5


SAVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.checkpoint_cases import Checkpointer, FINGERPRINT, make_state
with Checkpointer(Path(sys.argv[2]), 2, FINGERPRINT) as checkpointer:
    for step in range(1, 1000):
        print("saving", step, flush=True)
        checkpointer.save(step, make_state(step), {"tokens": step * 100})
        checkpointer.wait()
        print("good", step, flush=True)
"""


def test_sigkill_in_the_middle_of_a_save(tmp_path: Path) -> None:
    rng, num_kills = random.Random(1), 2
    for number in range(num_kills):
        directory, steps = tmp_path / str(number), {"good": 0, "saving": 0}
        command = [sys.executable, "-c", SAVER, str(REPO), str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                word, step = line.split()
                steps[word] = int(step)
                if steps["saving"] == 4 + number:
                    time.sleep(rng.uniform(0, 0.03))
                    process.send_signal(signal.SIGKILL)
        found = restore(directory)
        assert found is not None
        assert steps["good"] <= found[0] <= steps["saving"]
        assert_restores(directory, found[0])
        assert not list(directory.glob("*.*"))  # nothing is left of the killed save
    print(f"{num_kills} kills")


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 3, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    message = r"no space left.*1\.\d MB needed, 12\.3 kB free"
    with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        state = make_state(2)
        with pytest.raises(StorageError, match=message) as error:
            checkpointer.save(2, state, {})
    assert str(tmp_path / "2") in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["1"]


def failure(checkpointer: Checkpointer, step: int) -> StorageError | None:
    """The error of a save, at once or while it is waited for."""
    try:
        checkpointer.save(step, make_state(step), {})
        checkpointer.wait()
    except StorageError as error:
        return error
    return None


@pytest.mark.parametrize("where", ["orbax", "manifest", "wait"])
def test_a_failed_write_leaves_earlier_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    save(tmp_path, 1)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        if where == "manifest":
            monkeypatch.setattr(Manifest, "write", fail)
        elif where == "orbax":
            monkeypatch.setattr(checkpointer._orbax, "save", fail)
        else:
            monkeypatch.setattr(checkpointer._orbax, "wait_until_finished", fail)
        error = failure(checkpointer, 2)
        assert "no space left" in str(error)
        assert str(error).startswith(f"Cannot save checkpoint {tmp_path / '2'}: ")
        monkeypatch.undo()
        checkpointer.wait()  # said once
        checkpointer.save(3, make_state(3), {"tokens": 300})
    assert good_steps(tmp_path) == [1, 3]
    assert_restores(tmp_path, 3)


LIMITED_SAVER = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from errors import StorageError
from tests.checkpoint_cases import Checkpointer, FINGERPRINT, make_state
with Checkpointer(Path(sys.argv[2]), 2, FINGERPRINT) as checkpointer:
    checkpointer.save(1, make_state(1), {"tokens": 100})
    checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        checkpointer.save(2, {str(i): np.arange(9000.0) * i for i in range(50)}, {})
        checkpointer.wait()
    except StorageError as error:
        print(error)
"""


def test_a_write_that_fails_half_way_is_one_line(tmp_path: Path) -> None:
    """Files may not grow beyond 20 kB: TensorStore fails while it writes, as on a full disk."""
    command = [sys.executable, "-c", LIMITED_SAVER, str(REPO), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(f"Cannot save checkpoint {tmp_path / 'run' / '2'}: ")
    assert "Earlier checkpoints are intact." in done.stdout
    assert done.stdout.count("\n") == 1
    assert os.listdir(tmp_path / "run") == ["1"]
    assert_restores(tmp_path / "run", 1)


def test_only_what_is_raised_anyway_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(str(args.exc_value)))
    for text in ("Event loop is closed", "another"):
        with quiet_orbax():
            sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(text)))
    sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert seen == ["another", "Event loop is closed"]
