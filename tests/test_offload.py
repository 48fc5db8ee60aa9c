"""Moments that the host keeps: the numbers of a run that keeps them on its devices."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from parallel_cases import TinyTranslation, programs, run

import train
from errors import ConfigError
from tests import trainer_cases
from tests.trainer_cases import as_after, assert_same_outcome, outcome, tiny
from training import offload, parallel
from trees import named_leaves

NAME = "transformer"
CUBE = {"strategy": "mesh", "num_devices": 8, "mesh": (2, 2, 2)}
SLICES = {"strategy": "mesh", "num_devices": 8, "mesh": (1, 8, 1)}
AWAY = {"offload": "moments"}


def assert_same_bits(one: Any, other: Any) -> None:
    mine, theirs = named_leaves(one), named_leaves(other)
    assert mine.keys() == theirs.keys()
    differ = [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()]
    assert not differ, differ


COMPILED = [
    pytest.param(True, id="as tests compile"),
    pytest.param(False, id="as users compile", marks=pytest.mark.heavy),
]


@pytest.fixture(params=COMPILED)
def _compiled(request: pytest.FixtureRequest) -> Any:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", request.param)
    programs.cache_clear()
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    programs.cache_clear()


@pytest.mark.usefixtures("_compiled")
def test_no_bit_differs_with_adamw() -> None:
    options = {"optimizer": "adamw", "accumulate": 2, "dropout_rate": 0.3, **CUBE}
    assert_same_bits(run(NAME, **options, **AWAY), run(NAME, **options))


@pytest.mark.parametrize(
    ("name", "optimizer", "where"),
    [
        (NAME, "adafactor", CUBE),
        pytest.param(NAME, "momentum", SLICES, marks=pytest.mark.heavy),
        pytest.param(NAME, "sgd", CUBE, marks=pytest.mark.heavy),  # which has nothing to keep
        pytest.param("transformer-scan-remat", "adamw", SLICES, marks=pytest.mark.heavy),
        pytest.param("lstm-attention", "adamw", CUBE, marks=pytest.mark.heavy),
    ],
)
def test_no_bit_differs_with_any_optimizer(name: str, optimizer: str, where: dict) -> None:
    options = {"optimizer": optimizer, "steps": 2, **where}
    assert_same_bits(run(name, **options, **AWAY), run(name, **options))


def test_a_step_that_is_not_finite_changes_no_moment() -> None:
    task = TinyTranslation()

    def poisoned(i: int) -> dict:
        batch = task.batch(i)
        if i == 1:
            batch["weights"][0, 0] = np.nan
        return batch

    options = {"optimizer": "adamw", **CUBE, **AWAY}
    before, after = run(NAME, steps=1, **options), run(NAME, steps=2, batches=poisoned, **options)
    assert after["state"].skipped == 1
    assert_same_bits(after["state"].opt_state, before["state"].opt_state)
    assert_same_bits(after["state"].params, before["state"].params)


def test_moments_are_with_the_host_between_steps_and_their_buffers_are_reused() -> None:
    options = tuple({**CUBE, **AWAY}.items())
    strategy, first, shardings, step, _ = programs(NAME, 0.0, 1, options, "adamw")
    old = jax.device_put(first, shardings, may_alias=False)
    new, _ = step(old, strategy.put(TinyTranslation().batch(0)), jax.random.key(1))
    for state in (shardings, jax.tree.map(lambda x: x.sharding, new)):
        kept = {name for name, x in named_leaves(state).items() if x.memory_kind == offload.HOST}
        shapes = named_leaves(first)
        assert kept == {
            name for name in shapes if name.startswith("opt_state/") and shapes[name].ndim > 1
        }
        assert len(kept) > 20
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    whole = sum(x.nbytes for x in jax.tree.leaves(new.opt_state))
    assert whole / 8 < offload.host_bytes(new) < whole / 3
    assert offload.host_bytes(new.params) == 0


def test_each_group_of_parameters_is_updated_once() -> None:
    params = {f"layer_{i}": {"kernel": np.zeros((4, 4)), "bias": np.zeros(4)} for i in range(20)}
    seen: list[Any] = []

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        seen.append(state)
        return jax.tree.map(lambda g, m: g + m, grads, state["mu"]), {
            "mu": jax.tree.map(lambda m: m + 1, state["mu"]),
            "count": state["count"] + 1,
        }

    optimizer = offload.streamed(offload.optax.GradientTransformation(lambda p: None, update))
    state = {"mu": jax.tree.map(lambda x: x + 2, params), "count": np.int32(0)}
    grads = jax.tree.map(lambda x: x + 3, params)
    text = str(jax.make_jaxpr(optimizer.update)(grads, state, params))
    assert text.count("optimization_barrier") == len(seen) - offload.IN_FLIGHT
    updates, state = jax.jit(optimizer.update)(grads, state, params)
    assert 2 < len(seen) <= offload.GROUPS + 1
    assert {float(x) for leaf in jax.tree.leaves(updates) for x in leaf.ravel()} == {5.0}
    assert {float(x) for leaf in jax.tree.leaves(state["mu"]) for x in leaf.ravel()} == {3.0}
    assert state["count"] == 1
    print(f"{len(seen)} groups")


def test_a_run_goes_on_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs of one config: on the devices, by the host, and from one to the other."""
    trainer_cases.share_programs(monkeypatch)
    fields = {
        "num_steps": 6,
        "eval_every": 3,
        "save_every": 1,
        "keep_checkpoints": 7,
        "parallel__strategy": "mesh",
        "parallel__num_devices": 4,
        "parallel__mesh": "(1,2,2)",
    }
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    settings = {
        kept: tiny(data_dir, **fields, parallel__offload=kept) for kept in ("none", "moments")
    }
    for kept, mine in settings.items():
        train.train(mine, tmp_path / f"all {kept}")
    expected = outcome(tmp_path / "all none")
    assert_same_outcome(outcome(tmp_path / "all moments"), expected)
    for before, after in (("none", "moments"), ("moments", "none")):
        workdir = as_after(tmp_path / f"all {before}", 3, tmp_path / f"{before} to {after}")
        train.train(settings[after], workdir)
        assert_same_outcome(outcome(workdir), expected)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"parallel__offload": "moment"}, "config.parallel.offload: .*'moments'"),
        ({"parallel__offload": "moments"}, "offload 'moments' needs .* 'mesh', got 'pmap'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, fields: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        tiny(tmp_path, **fields)
    assert "\n" not in str(caught.value)


def test_a_device_without_such_a_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    memories = [SimpleNamespace(kind="device"), SimpleNamespace(kind="unpinned_host")]
    found = [SimpleNamespace(platform="metal", addressable_memories=lambda: memories)]
    sentence = (
        "config.parallel.offload 'moments' needs devices with the memory 'pinned_host', but a "
        "metal device here has only 'device', 'unpinned_host'."
    )
    monkeypatch.setattr(parallel.cores, "for_training", lambda *_: found)
    monkeypatch.setattr(parallel.mesh_utils, "create_device_mesh", lambda *_, **__: np.array(found))
    block = {**CUBE, **AWAY, "num_devices": 1, "mesh": (1, 1, 1), "canonical_shards": 0}
    monkeypatch.setattr(parallel, "Mesh", lambda *_, **__: None)
    with pytest.raises(ConfigError) as caught:
        parallel.build_strategy(block)
    assert str(caught.value) == sentence
