"""A checkpoint is restored bit for bit, or not at all; a kill or a full disk costs one save."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from errors import ConfigError, StorageError
from tests.checkpoint_cases import (
    FINGERPRINT,
    abstract,
    assert_restores,
    assert_same_bits,
    make_state,
    restore,
    save,
)
from training.checkpoint_reader import good_steps, load
from training.checkpoints import Checkpointer
from training.manifest import Manifest


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    save(directory, 1, 2)
    return directory


def test_nothing_saved_restores_none(tmp_path: Path) -> None:
    assert restore(tmp_path / "new") is None
    with pytest.raises(ConfigError, match="No checkpoint in"):
        load(tmp_path / "new")


def test_restores_bits_meta_and_records(two_checkpoints: Path) -> None:
    assert_restores(two_checkpoints, 2)
    manifest = Manifest.read(two_checkpoints / "2")
    assert manifest.fingerprint == FINGERPRINT
    assert manifest.parent_step == 1
    assert manifest.provenance["versions"]["jax"] == jax.__version__
    assert manifest.arrays["params/out/bias"].dtype == "bfloat16"


def test_restores_the_step_that_is_asked_for(two_checkpoints: Path) -> None:
    found = restore(two_checkpoints, step=1)
    assert found is not None
    assert_same_bits(found[1], make_state(1))
    with pytest.raises(ConfigError, match=r"No checkpoint of step 7 .* There are: 1, 2\."):
        restore(two_checkpoints, step=7)


def test_load_needs_no_state(two_checkpoints: Path) -> None:
    step, params, meta = load(two_checkpoints, subtree="params")
    assert (step, meta) == (2, {"tokens": 200})
    assert_same_bits(params, jax.tree.map(np.asarray, make_state(2).params))
    assert load(two_checkpoints, step=1)[1]["step"] == 1
    with pytest.raises(ConfigError, match=r"no 'param'\. Known: opt_state, params, step"):
        load(two_checkpoints, subtree="param")


def test_keeps_the_newest_and_replaces_the_same_step(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, keep=3)
    assert good_steps(tmp_path) == [2, 3, 4]
    save(tmp_path, 5, keep=1)  # less than two are never kept
    assert good_steps(tmp_path) == [4, 5]
    with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        checkpointer.save(5, make_state(9), {})
    found = restore(tmp_path)
    assert found is not None
    assert_same_bits(found[1], make_state(9))
    assert sorted(os.listdir(tmp_path)) == ["4", "5"]


def test_state_may_be_donated_after_save(tmp_path: Path) -> None:
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones_like(x), s), donate_argnums=0)
    state, saved = make_state(3, size=4096), make_state(3, size=4096)
    with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        checkpointer.save(3, state, {})
        for _ in range(20):
            state = advance(state)
        jax.block_until_ready(state)
        found = checkpointer.restore(abstract(saved))
    assert found is not None
    assert_same_bits(found[1], saved)


def test_restores_on_another_number_of_devices(tmp_path: Path) -> None:
    def sharding(num_devices: int, leaf: Any) -> NamedSharding:
        mesh = Mesh(np.array(jax.devices()[:num_devices]), ("data",))
        split = leaf.ndim and leaf.shape[0] % 8 == 0 and leaf.size
        return NamedSharding(mesh, PartitionSpec("data") if split else PartitionSpec())

    counts, tried = [n for n in (1, 2, 4, 8) if n <= jax.device_count()], 0
    for a in counts:
        state = jax.tree.map(lambda x, a=a: jax.device_put(x, sharding(a, x)), make_state(a))
        with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
            checkpointer.save(a, state, {})
            for b in counts:
                target = jax.tree.map(
                    lambda x, b=b: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(b, x)),
                    abstract(state),
                )
                found = checkpointer.restore(target, step=a if tried % 2 else None)
                assert found is not None
                assert_same_bits(found[1], make_state(a))
                assert found[1].params["encoder"]["kernel"].sharding == sharding(
                    b, state.params["encoder"]["kernel"]
                )
                tried += 1
    print(f"{tried} pairs of device counts")


MISMATCHES = {
    "shape": (
        make_state(0, size=16),
        r"'params/encoder/kernel' as float32\[8, 4\], .* float32\[16, 4\]",
    ),
    "dtype": (make_state(0).replace(step=jnp.zeros((), jnp.uint32)), "'step' as int32"),
    "missing": (
        make_state(0).replace(ema_params={"a": jnp.ones(2)}),
        "has no array 'ema_params/a'",
    ),
    "unknown": (make_state(0).replace(opt_state=()), "has an unknown array 'opt_state/1/0/count'"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_refuses_a_checkpoint_of_another_model(two_checkpoints: Path, name: str) -> None:
    state, message = MISMATCHES[name]
    before = sorted(two_checkpoints.rglob("*"))
    checkpointer = Checkpointer(two_checkpoints, 5, FINGERPRINT)
    with checkpointer, pytest.raises(ConfigError, match=message):
        checkpointer.restore(abstract(state))
    assert sorted(two_checkpoints.rglob("*")) == before


def test_refuses_a_changed_fingerprint_only_where_it_must_match(two_checkpoints: Path) -> None:
    changed = FINGERPRINT | {"tokenizer": "t2"}
    with Checkpointer(two_checkpoints, 5, changed) as checkpointer:
        target = abstract(make_state(0))
        with pytest.raises(ConfigError, match="tokenizer was 't1' and is now 't2'"):
            checkpointer.restore(target, must_match=["data", "tokenizer"])
        assert checkpointer.restore(target, must_match=["data"]) is not None


def test_journal_hears_of_saves_and_damage(two_checkpoints: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(two_checkpoints, tmp_path / "copy")
    (directory / "2" / "manifest.json").write_text("")
    heard: list[tuple] = []
    journal = lambda event, **fields: heard.append((event, fields))  # noqa: E731
    with Checkpointer(directory, 5, FINGERPRINT, journal) as checkpointer:
        checkpointer.restore(abstract(make_state(0)))
        checkpointer.save(2, make_state(2), {})
    reason = "manifest.json cannot be read (Expecting value: line 1 column 1 (char 0))"
    assert heard == [("set_aside", {"step": 2, "reason": reason}), ("save", {"step": 2})]
    assert json.loads((directory / "2" / "manifest.json").read_text())["parent_step"] == 1


def test_an_error_of_the_last_save_is_raised_on_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Manifest, "write", fail)
    checkpointer = Checkpointer(tmp_path, 2, FINGERPRINT)
    with pytest.raises(StorageError, match="Input/output error"), checkpointer:
        checkpointer.save(1, make_state(1), {})
    with contextlib.suppress(KeyError), Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        checkpointer.save(1, make_state(1), {})
        raise KeyError  # another error is not replaced by that of the save
    assert good_steps(tmp_path) == []


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write checkpoints to .*: Not a directory\."):
        Checkpointer(tmp_path / "file" / "checkpoints", 2, FINGERPRINT).__enter__()
