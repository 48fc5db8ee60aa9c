"""Faults of a disk that pass are met patiently, others end the run in one line; none is silent."""

import contextlib
import errno
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import train
from errors import StorageError
from tests import checkpoint_cases, trainer_cases
from tests.kill_cases import check_records
from tests.storms import Storm, assert_all_caught
from tests.trainer_cases import assert_same_outcome, journal, outcome, tiny
from training import files, run_directory
from training.checkpoints import Checkpointer
from training.manifest import Manifest
from training.run_directory import RunDirectory

PASSING = (errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT)
LASTING = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
FIELDS = {"num_steps": 6, "eval_every": 3, "save_every": 2, "log_every": 2}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))


def plant_faults(patch: pytest.MonkeyPatch, faults: Iterator[int]) -> None:
    """Each write to disk first asks for an error number; 0 is none."""

    def faulty(call: Callable) -> Callable:
        def attempt(*args, **kwargs):
            if number := next(faults, 0):
                raise OSError(number, os.strerror(number))
            return call(*args, **kwargs)

        return attempt

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "rename")):
        patch.setattr(owner, name, faulty(getattr(owner, name)))


def random_faults(rng: random.Random, kinds: tuple[int, ...], rate: float) -> Iterator[int]:
    while True:
        yield rng.choice(kinds) if rng.random() < rate else 0


def run_with(faults: Iterator[int], settings: dict, workdir: Path) -> int:
    """The exit code of a run that meets faults; an error is one line that names a path."""
    with pytest.MonkeyPatch.context() as patch:
        plant_faults(patch, faults)
        try:
            train.train(settings, workdir)
        except StorageError as error:
            said = str(error)
        else:
            return 0
    assert "\n" not in said
    assert str(workdir) in said
    return 74


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trials", [4, pytest.param(80, marks=pytest.mark.slow)])
def test_no_fault_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    """Half of the runs meet faults that pass, half of them one that lasts; all end alike."""
    trainer_cases.share_programs(monkeypatch)
    settings = tiny(trainer_cases.make_data_dir(tmp_path / "data"), "lstm", **FIELDS)
    train.train(settings, tmp_path / "whole")
    expected, rng, ends = outcome(tmp_path / "whole"), random.Random(trials), {0: 0, 74: 0}
    with Storm("faults of the disk", trials) as storm:
        for number in range(trials):
            kinds, rate = (PASSING, 0.01) if number % 2 else (LASTING, 0.03)
            with storm.trial((number, kinds)):
                workdir = tmp_path / str(number)
                ends[run_with(random_faults(rng, kinds, rate), settings, workdir)] += 1
                train.train(settings, workdir)
                check_records(workdir)
                assert_same_outcome(outcome(workdir), expected)
    print(f"{ends[0]} runs were done in spite of them, {ends[74]} refused in one line")


def swallow(work: Callable) -> None:
    with contextlib.suppress(OSError):
        work()


BUGS = {
    "nothing is done again": lambda p: [
        p.setattr(module, "patiently", lambda work: work()) for module in (files, run_directory)
    ],
    "faults are swallowed": lambda p: [
        p.setattr(module, "patiently", swallow) for module in (files, run_directory)
    ],
    "a full disk is asked again": lambda p: p.setattr(
        files, "PASSING", (*files.PASSING, errno.ENOSPC)
    ),
    "a line is written twice": lambda p: p.setattr(os, "ftruncate", lambda *args: None),
    "a file is replaced before it is whole": lambda p: p.setattr(
        files, "_write_atomic", lambda path, content, durable: path.write_text(content[:3])
    ),
}


def test_a_writer_with_a_bug_is_found_out(tmp_path: Path) -> None:
    numbers = iter(range(99))

    def check() -> None:
        run = RunDirectory(tmp_path / str(next(numbers)))
        run.path.mkdir()
        run.write_config({"seed": 1})
        for faults, good in (
            ([errno.EIO], True),
            ([errno.ENOSPC], False),
            ([errno.EIO] * 9, False),
        ):
            left = iter(faults)
            for write in (
                lambda: run.journal("start"),
                lambda: run.write_config({"seed": 2}),
            ):
                before = run.read_config(), (run / "journal.jsonl").exists() and journal(run.path)
                with pytest.MonkeyPatch.context() as patch:
                    left = iter(faults)
                    plant_faults(patch, left)
                    if good:
                        write()
                    else:
                        with pytest.raises(StorageError):
                            write()
                if faults == [errno.ENOSPC]:
                    assert next(left, None) is None
                    assert (run.read_config(), journal(run.path)) == before
        assert run.read_config() == {"seed": 2}
        assert len(journal(run.path, "start")) == 1

    assert_all_caught("bugs of writing", check, BUGS)


READS = [
    ("manifest.json", "us"),
    ("arrays/manifest.ocdbt", "us"),
    ("arrays/manifest.ocdbt", "Orbax"),
]


@pytest.mark.parametrize(("name", "by"), READS)
def test_a_fault_while_reading_costs_no_checkpoint(
    name: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ELOOP, which a link to itself gives, stands for EIO; it passes before the second attempt."""
    checkpoint_cases.save(tmp_path, 1, 2)
    target, attempts = tmp_path / "2" / name, []
    moved = target.with_suffix(".moved")

    def mend(seconds: float) -> None:
        attempts.append(seconds)
        moved.replace(target)

    target.rename(moved)
    target.symlink_to(target.name)
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=mend))
    monkeypatch.setattr(files, "PASSING", (*files.PASSING, errno.ELOOP))
    if by == "Orbax":  # and TensorStore: they are the first that read
        monkeypatch.setattr(Manifest, "verify_files", lambda *_: None)
    checkpoint_cases.assert_restores(tmp_path, 2)
    assert len(attempts) == 1
    assert not (tmp_path / "bad").exists()


def test_a_fault_while_tensorstore_writes_costs_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EFBIG stands for EIO: a limit, above what Orbax itself writes, that the first pause lifts."""
    before, attempts = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def mend(seconds: float) -> None:
        attempts.append(seconds)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=mend))
    monkeypatch.setattr(files, "PASSING", (*files.PASSING, errno.EFBIG))
    state = checkpoint_cases.make_state(1, size=8192)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with Checkpointer(tmp_path, 5, checkpoint_cases.FINGERPRINT) as checkpointer:
            checkpointer.save(1, state, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(attempts) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
    with Checkpointer(tmp_path, 5, checkpoint_cases.FINGERPRINT) as checkpointer:
        _, found, _ = checkpointer.restore(checkpoint_cases.abstract(state))
    checkpoint_cases.assert_same_bits(found, state)


@pytest.mark.parametrize("number", [*PASSING, *LASTING])
def test_tensorstore_s_faults_are_told_by_their_number(number: int) -> None:
    error = ValueError(
        f"UNKNOWN: Error reading \"0\": {os.strerror(number)} [os_error_code='{number}']"
    )
    assert files.passes(error) == files.passes(OSError(number, "")) == (number in PASSING)
    assert not files.passes(ValueError("DATA_LOSS: Invalid data; at byte 5"))
