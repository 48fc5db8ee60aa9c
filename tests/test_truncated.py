"""Truncated back-propagation: what the gradient reaches, and the state between steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import tasks
import train
from errors import ConfigError
from tests import trainer_cases
from tests.test_resume import as_after
from tests.trainer_cases import outcome, settings_of
from training import parallel
from training.optimizer import build_optimizer
from training.rows import by_rows
from training.state import UpdateRule, create_state

ROWS, K1, K2 = 8, 6, 10
NUM_STEPS = 14
MODEL = {
    "name": "recurrent_lm",
    "embedding_size": 8,
    "hidden_size": 8,
    "num_layers": 1,
    "dropout_rate": 0.0,
}
FIELDS = ("inputs", "targets", "weights", "segments")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("streams"))


@functools.cache
def build(cache, truncate=K2, k1=K1, rows=ROWS):
    """(task, gradient function, model, parameters)"""
    sizes = {"num_train": 64, "num_validation": 12, "num_test": 12}
    block = {
        "name": "language_modelling",
        "source": {"name": "copy", **sizes},
        "tokenizer": {"name": "words"},
        "sequence_length": k1,
        "sequences_per_batch": rows,
        "truncate": truncate,
    }
    task = tasks.build(block, 0, cache)
    model = models.build(MODEL, task.vocab_size)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, batch):
        sums = task.loss(model, {"params": params}, batch, None, train=False)
        return sums["loss"][0], sums

    return task, gradient, model, models.init(model, jax.random.key(0))["params"]


def assert_close(found, expected, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(1e-2, np.abs(other).max()))


def test_the_gradient_is_the_full_one_where_k_is_the_length(cache):
    task, gradient, _, params = build(cache, 40, 40)
    batch = task.batch("train", 0)
    found, sums = gradient(params, batch)
    expected, others = build(cache, 0, 40)[1](params, batch)
    assert sums.pop("carry") is not None
    assert_close((found, sums), (expected, others))


def test_the_gradient_reaches_k2_steps_back_and_no_further(cache):
    """A window whose state before it is held fixed, written with nothing but `step`."""
    task, gradient, model, params = build(cache)
    _, before = gradient(params, task.batch("train", 1))
    batch = {**task.batch("train", 2), "carry": before["carry"]}
    found, sums = gradient(params, batch)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def by_hand(params):
        def body(before, at):
            (carry, previous), (token, target, weight, segment) = before, at
            keep = jnp.float32(segment == previous)[:, None]
            carry = jax.tree.map(lambda leaf: leaf * keep, carry)
            carry, scores = model.apply({"params": params}, carry, token, method="step")
            log_p = jax.nn.log_softmax(scores)[jnp.arange(ROWS), target]
            return (carry, segment), (-(log_p * weight).sum(), carry)

        start = batch["carry"], jnp.ones(ROWS, jnp.int32)
        _, (losses, carries) = jax.lax.scan(body, start, [batch[name].T for name in FIELDS])
        return losses.sum(), jax.tree.map(lambda leaf: leaf[K1 - 1], carries)

    (loss, kept), expected = by_hand(params)
    assert_close((found, sums["loss"][0], sums["carry"]), (expected, loss, kept))
    # With the same state, the same loss; the gradient of k1 steps alone is another.
    at = jax.tree.map(jnp.asarray, state_after(model, params, batch, K2 - K1))
    piece = {name: batch[name][:, K2 - K1 :] for name in FIELDS} | {"carry": at}
    piece["segments"] = np.maximum(piece["segments"] - batch["segments"][:, [K2 - K1 - 1]] + 1, 0)
    shorter, again = build(cache, K1)[1](params, piece)
    assert float(again["loss"][0]) == pytest.approx(float(loss), rel=1e-5)
    with pytest.raises(AssertionError):
        assert_close(shorter, expected, 1e-3)


def state_after(model, params, batch, length):
    """The carry after the first tokens of a batch."""
    inputs, segments = (batch[name][:, :length] for name in ("inputs", "segments"))
    arguments = (batch["carry"], inputs, segments)
    return model.apply({"params": params}, *arguments, method="features_from")[0]


def test_evaluation_carries_the_state_through_the_split_whatever_the_streams(cache):
    """As documents read whole, from 2 streams and from 8."""

    def loss(truncate, k1, rows):
        task, gradient, model, params = build(cache, truncate, k1, rows)
        total, carry = 0.0, task.init_carry(model)
        for step in range(task.num_batches("test")):
            _, sums = gradient(params, {**task.batch("test", step), "carry": carry})
            total, carry = total + float(sums["loss"][0]), sums.get("carry")
        return total

    expected = loss(0, 60, ROWS)
    assert [loss(K1, K1, 2), loss(K1, K1, 8)] == pytest.approx([expected] * 2, rel=1e-5)


def test_an_epoch_begins_anew_whatever_was_carried(cache):
    task, gradient, model, params = build(cache, K1)
    carry = task.init_carry(model)
    ill = jax.tree.map(lambda leaf: leaf + 3.0, carry)
    size = task.num_batches("train")
    for step, same in ((0, True), (size, True), (1, False)):
        batch = task.batch("train", step)
        found = [jax.device_get(gradient(params, {**batch, "carry": c})) for c in (carry, ill)]
        one, other = (np.concatenate([x.ravel() for x in jax.tree.leaves(f)]) for f in found)
        assert (one == other).all() == same


# ---------------------------------------------------------------- devices


def run(cache, *, accumulate=1, **options):
    parts = {
        "strategy": "pmap",
        "num_devices": 1,
        "mesh": (0, 1, 1),
        "canonical_shards": 0,
    } | options
    task, _, model, _ = build(cache)
    strategy = parallel.build_strategy(parts, accumulate)
    optimizer, schedule = build_optimizer(
        {"name": "sgd", "learning_rate": 0.5, "schedule": {"name": "constant"}}, 3
    )

    def init():
        carry = by_rows(task.init_carry(model), strategy.multiple, "rows")
        return create_state(
            models.init_boxed(model, jax.random.key(0))["params"], optimizer, False, carry
        )

    step = functools.partial(
        train.train_step,
        model=model,
        task=task,
        rule=UpdateRule(optimizer, schedule, 1.0, 0.0),
        accumulate=accumulate,
        shards=parts["canonical_shards"],
    )
    state, compiled, losses = strategy.init(init), strategy.train_step(step), []
    for i in range(3):
        state, record = compiled(state, strategy.put(task.batch("train", i)), jax.random.key(1))
        losses.append(record["sums"]["loss"][0])
    saved = strategy.abstract(init)  # what a checkpoint is restored into
    shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in (state, saved)]
    assert shapes[0] == shapes[1]
    for leaf in jax.tree.leaves(saved.carry):
        assert leaf.sharding.shard_shape(leaf.shape)[0] == ROWS // parts["num_devices"]
    return state, jax.device_get({"state": state, "losses": losses})


@functools.cache
def alone(cache):
    return run(cache)[1]


CASES = [
    {"num_devices": 8},
    {"strategy": "mesh", "num_devices": 8, "mesh": (4, 2, 1)},
    {"accumulate": 4, "num_devices": 2},
    {"num_devices": 4, "canonical_shards": 8},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_many_devices_and_micro_batches_equal_one(cache, case):
    state, found = run(cache, **case)
    assert_close(found, alone(cache), 2e-6)
    leaf = jax.tree.leaves(state.carry)[0]
    spread = case["num_devices"]
    assert leaf.shape[0] == ROWS
    assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {ROWS // spread}


# ---------------------------------------------------------------- runs


def settings(data_dir, *more):
    config = "configs/language_model.py:model=lm-lstm-tiny,smoke"
    fields = {
        "task.source": "{'name': 'copy', 'num_train': 6, 'num_validation': 4, 'num_test': 4}",
        "task.sequence_length": 5,
        "task.sequences_per_batch": 2,
        "task.truncate": 8,
        "model.embedding_size": 8,
        "model.hidden_size": 8,
        "num_steps": NUM_STEPS,
        "eval_every": 7,
        "save_every": 1,
        "keep_checkpoints": 40,
        "diagnose_every": 2,
        "log_every": 3,
        "parallel.num_devices": 1,
        "data_dir": str(data_dir),
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return settings_of([f"--config={config}", *overrides, *more])


def test_a_run_resumed_at_any_step_ends_bit_for_bit(tmp_path, monkeypatch):
    trainer_cases.share_programs(monkeypatch)
    shared = trainer_cases.make_data_dir(tmp_path / "data")
    checked = settings(shared)
    train.train(checked, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    assert any(name.startswith("['carry']") for name in expected["state"])
    assert expected["meta"]["watch"]["steps"] == NUM_STEPS
    task = tasks.build(checked["task"], 0, str(shared))
    size = task.num_batches("train")
    assert 3 < size < NUM_STEPS - 1
    for step in (1, size - 1, size, size + 1):
        workdir = as_after(tmp_path / "whole", step, tmp_path / str(step))
        train.train(checked | {"save_every": NUM_STEPS}, workdir)
        trainer_cases.assert_same_outcome(outcome(workdir), expected)


REFUSED = [
    ("--config.task.truncate=4", r"config\.task\.truncate \(4\) must be 0 or at least"),
    ("--config.task.packed=False", r"needs config\.task\.packed"),
    ("--config.parallel.num_devices=8", r"sequences_per_batch \(2\) must be a multiple of 8"),
    ("--config.task.truncate=-1", r"config\.task\.truncate must be a whole number of at least 0"),
]


@pytest.mark.parametrize(("override", "words"), REFUSED)
def test_what_does_not_go_is_refused_in_one_line(tmp_path, monkeypatch, override, words):
    trainer_cases.share_programs(monkeypatch)
    with pytest.raises(ConfigError, match=words) as caught:
        train.train(
            settings(trainer_cases.make_data_dir(tmp_path / "data"), override), tmp_path / "run"
        )
    assert "\n" not in str(caught.value)


def test_a_transformer_is_refused(cache):
    task = build(cache)[0]
    model = models.build({"name": "transformer_lm", "d_model": 8, "num_heads": 2}, task.vocab_size)
    with pytest.raises(
        ConfigError, match=r"config\.task\.truncate \(10\) needs .* TransformerLM does"
    ):
        task.init_carry(model)
