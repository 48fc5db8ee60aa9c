"""A disk that fills up: one line that says so, and nothing lost of what was saved before."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from errors import StorageError
from tests import trainer_cases
from tests.checkpoint_cases import FINGERPRINT, assert_restores, make_state, save
from tests.kill_cases import FIELDS, check_records, run_undisturbed
from tests.storms import Storm, assert_all_caught
from tests.trainer_cases import arguments, assert_same_outcome, journal, outcome
from tests.trainer_processes import Command
from training import checkpoint_folder, checkpoint_reader, checkpoints

LARGE = 64 << 20


def mount(place: Path, *arguments: str) -> bool:
    """Whether the system lets us mount there."""
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", *arguments, "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of its own with so many bytes."""
    place.mkdir()
    if not mount(place, "-o", f"size={size}"):
        pytest.skip("this system lets us mount no tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], capture_output=True, check=False)


def see_no_limit() -> None:
    """As when another program fills the disk after it was asked for its free bytes."""
    checkpoints.free_bytes = lambda path: LARGE


def bytes_of(folder: Path) -> int:
    """What a folder takes of a disk, its pages filled up."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "levels",
    [pytest.param(2, marks=pytest.mark.heavy), pytest.param(20, marks=pytest.mark.slow)],
)
def test_a_run_survives_a_full_disk(tmp_path: Path, levels: int) -> None:
    """A tmpfs of each size, from one page to all but one; then it is given more room."""
    if not os.access("/proc/mounts", os.R_OK):
        pytest.skip("this system has no tmpfs")
    (tmp_path / "whole").mkdir()
    uninterrupted = run_undisturbed(tmp_path / "whole", "lstm")
    most = bytes_of(tmp_path / "whole" / "run")
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv = arguments(data_dir, "lstm", **FIELDS)
    refused = 0
    with Storm(f"full disk, {levels} levels", levels) as storm:
        for level in range(levels):
            blind = level % 2 == 0  # fills while it is written to; or is seen to be full before
            room = most * (level + 1) // (levels + 1) + (0 if blind else checkpoints.MARGIN)
            name = tmp_path / f"disk{level}"
            with disk(name, -(-room // 4096) * 4096) as place, storm.trial(f"{room} bytes"):
                workdir = place / "run"
                prepare = see_no_limit if blind else None
                command = Command(argv, workdir, tmp_path / "output", None, prepare)
                refused += fills_up(command, workdir)
                assert mount(place, "-o", f"remount,size={LARGE}")
                again = Command(argv, workdir, tmp_path / "output")
                assert again.wait() == 0, again.stderr
                check_records(workdir)
                assert_same_outcome(outcome(workdir), uninterrupted)
    assert refused > levels // 2


def fills_up(command: Command, workdir: Path) -> bool:
    """Whether a run has met the end of the disk; then in one line, and all saves are good."""
    if (code := command.wait()) == 0:
        return False
    assert code == 74, command.stderr
    assert "Traceback" not in command.stderr
    said = [line for line in command.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, command.stderr
    assert str(workdir) in said[0]
    assert "free" in said[0]
    saved = [] if not workdir.exists() else whole_saves(workdir)
    found = set(checkpoint_reader.good_steps(workdir / "checkpoints"))
    assert set(saved[-2:]) <= found
    for step in found:
        checkpoint_reader.load(workdir / "checkpoints", step)
    return True


def whole_saves(workdir: Path) -> list[int]:
    """Steps that the journal names as saved; its last line may be cut short."""
    if not (workdir / "journal.jsonl").exists():
        return []
    text = (workdir / "journal.jsonl").read_text().rpartition("\n")[0]
    (workdir / "journal.jsonl").write_text(f"{text}\n" if text else "")
    return [line["step"] for line in journal(workdir, "save")]


# ------------------------------------------------------------- what a storm must find


def no_room(*args: object, **kwargs: object) -> None:
    raise OSError(28, "No space left on device")


def delete_before(patch: pytest.MonkeyPatch) -> None:
    """Makes room for a save by deleting what was saved before."""
    begin = checkpoint_folder.CheckpointFolder.begin

    def greedy(self, step):
        self.keep_newest(1)
        for old in self.steps():
            shutil.rmtree(self / old)
        begin(self, step)

    patch.setattr(checkpoint_folder.CheckpointFolder, "begin", greedy)


def say_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoints.Checkpointer, "_failed", lambda *args: KeyError("a bug"))


def leave_rubbish(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint_folder.CheckpointFolder, "clean", lambda self: None)


def believe_it_is_good(patch: pytest.MonkeyPatch) -> None:
    """Takes a save for good whose arrays were never written."""

    def lenient(self, step, arrays, infos, meta):
        self._folder.begin(step)
        (self._folder / step).mkdir()
        manifest = checkpoints.Manifest(step, None, infos, {}, meta, FINGERPRINT, {})
        manifest.write(self._folder / step)

    patch.setattr(checkpoints.Checkpointer, "_write", lenient)


BUGS = {
    "deletes before it writes": delete_before,
    "another error": say_nothing,
    "rubbish stays": leave_rubbish,
    "a save without arrays": believe_it_is_good,
}


def test_a_save_that_is_wrong_about_a_full_disk_is_found_out(tmp_path: Path) -> None:
    number = iter(range(99))

    def fill() -> None:
        directory = tmp_path / str(next(number))
        save(directory, 1, 2)
        with (
            pytest.MonkeyPatch.context() as patch,
            checkpoints.Checkpointer(directory, 2, FINGERPRINT) as saver,
        ):
            patch.setattr(saver._orbax, "wait_until_finished", no_room)
            saver.save(3, make_state(3), {})
            with pytest.raises(StorageError, match="no space left"):
                saver.wait()
            assert sorted(os.listdir(directory)) == ["1", "2"]
        assert_restores(directory, 2)

    assert_all_caught("bugs about a full disk", fill, BUGS)
