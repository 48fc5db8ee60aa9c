"""Damage is never silent: the state comes back bit for bit, or that of the save before."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import StorageError
from tests.checkpoint_cases import (
    FINGERPRINT,
    abstract,
    assert_restores,
    assert_same_bits,
    make_state,
    restore,
    save,
)
from training import checkpoint_folder
from training.checkpoint_reader import load
from training.checkpoints import Checkpointer


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    save(directory, 1, 2)
    return directory


def damage(file: Path, kind: str, other: Path, rng: random.Random) -> bool:
    """Damages one file; returns whether its bytes are now others than before."""
    before = file.read_bytes()
    content = bytearray(before)
    if kind == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        content = bytearray(len(content))
    elif kind == "truncate":
        content = content[: rng.randrange(len(content) or 1)]
    elif kind == "empty":
        content = bytearray()
    elif kind == "delete":
        file.unlink()
        return True
    elif kind == "swap":
        content = bytearray(other.read_bytes())
        other.write_bytes(before)
    file.write_bytes(content)
    return bytes(content) != before


@pytest.mark.parametrize("number_of_trials", [120, pytest.param(400, marks=pytest.mark.slow)])
def test_damage_is_never_silent(
    two_checkpoints: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number_of_trials: int,
) -> None:
    """Every kind on every file, then chance on the files that matter most."""
    rng = random.Random(number_of_trials)
    files = sorted(p.relative_to(two_checkpoints) for p in two_checkpoints.glob("2/**/*"))
    files = [name for name in files if (two_checkpoints / name).is_file()]
    kinds = ["flip", "zeros", "truncate", "empty", "delete", "swap"]
    cases = [(name, kind) for name in files for kind in kinds]
    largest = sorted(files, key=lambda name: -(two_checkpoints / name).stat().st_size)[:3]
    while len(cases) < number_of_trials:
        cases.append((rng.choice(largest), rng.choice(["flip", "truncate", "swap"])))
    outcomes = {"unharmed": 0, "fell back": 0, "not damaged": 0}
    expected = {1: make_state(1), 2: make_state(2)}
    with Checkpointer(tmp_path / "none", 5, FINGERPRINT) as checkpointer:
        for number, (name, kind) in enumerate(cases):
            directory = tmp_path / str(number)
            shutil.copytree(two_checkpoints, directory)
            other = directory / rng.choice([n for n in files if n != name])
            changed = damage(directory / name, kind, other, rng)
            caplog.clear()
            checkpointer._folder = checkpoint_folder.CheckpointFolder(directory)
            found = checkpointer.restore(abstract(expected[1]))
            assert found is not None, (name, kind)
            step, state, meta = found
            assert_same_bits(state, expected[step])
            assert meta == {"tokens": step * 100}
            if step == 1:
                [line] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
                assert f"{directory / '2'} is damaged: " in line
                assert "\n" not in line
                assert len(os.listdir(directory / "bad")) == 1
            outcomes["fell back" if step == 1 else "unharmed" if changed else "not damaged"] += 1
            shutil.rmtree(directory)
    trials = outcomes["unharmed"] + outcomes["fell back"]
    print(f"{trials} trials over {len(files)} files: {outcomes}")
    assert trials >= 0.9 * number_of_trials
    assert outcomes["fell back"] >= trials - 12  # two files by six kinds are read by nothing


def test_values_are_verified_and_not_only_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that changed between the state and the disk: the files are as they were written."""
    save(tmp_path, 1)
    with Checkpointer(tmp_path, 5, FINGERPRINT) as checkpointer:
        write = checkpointer._orbax.save

        def write_another_value(path: Path, args: Any) -> None:
            kernel = args.arrays.item["params/encoder/kernel"]
            args.arrays.item["params/encoder/kernel"] = np.where(kernel > 1, kernel + 1, kernel)
            write(path, args)

        checkpointer._orbax.save = write_another_value
        checkpointer.save(2, make_state(2), {"tokens": 200})
        checkpointer.wait()
    assert_restores(tmp_path, 1)
    assert "the values of array 'params/encoder/kernel' were altered" in caplog.text


def test_a_checkpoint_under_another_name_is_damaged(
    two_checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(two_checkpoints / "1", tmp_path / "1")
    shutil.copytree(two_checkpoints / "1", tmp_path / "2")
    assert_restores(tmp_path, 1)
    assert "manifest.json is that of step 1" in caplog.text


def test_when_all_are_damaged_nothing_is_moved(two_checkpoints: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two_checkpoints, tmp_path / "copy")
    (directory / "1" / "manifest.json").unlink()
    shutil.rmtree(directory / "2" / "arrays")
    for _ in range(2):
        with pytest.raises(
            StorageError, match=r"is intact: step 2: arrays/_METADATA is missing; step 1: manif"
        ):
            restore(directory)
        with pytest.raises(StorageError, match="is intact"):
            load(directory)
    assert sorted(os.listdir(directory)) == ["1", "2"]


def test_load_passes_over_damage_and_changes_nothing(
    two_checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = shutil.copytree(two_checkpoints, tmp_path / "copy")
    (directory / "2" / "manifest.json").write_text("{}")
    before = sorted(directory.rglob("*"))
    assert load(directory)[0] == 1
    assert "2 is damaged: manifest.json was altered" in caplog.text
    assert sorted(directory.rglob("*")) == before


# ----- kills and full disks -----
