"""A step does not depend on how it is spread over devices and micro-batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import SEQ2SEQ, VOCAB, sources, tokens

import models
from errors import ConfigError
from tasks.losses import token_sums
from train import train_step
from training import parallel
from training.optimizer import build_optimizer
from training.state import UpdateRule, create_state

NAMES = ["transformer", "transformer-scan-remat", "lstm-attention"]
ROWS = 16


class TinyTranslation:
    """Random pairs of unequal lengths; what train_step needs of a task."""

    def batch(self, step: int) -> dict:
        inputs_BT = tokens(ROWS, 7, seed=step)
        lengths_B = np.random.default_rng(step).integers(1, 8, ROWS)
        weights_BT = (np.arange(7) < lengths_B[:, None]).astype(np.float32)
        targets_BT = tokens(ROWS, 7, seed=step + 99)
        source_BS = np.concatenate([sources(ROWS // 2), sources(ROWS // 2)])
        parts = {"source": source_BS, "inputs": inputs_BT, "targets": targets_BT}
        return {**parts, "weights": weights_BT}

    def loss(self, model, variables, batch, key, train):
        inputs = (batch["source"], batch["inputs"])
        return token_sums(model, variables, inputs, batch, key, train, 0.1)


@functools.cache
def programs(name, dropout_rate, accumulate, options) -> tuple:
    """(strategy, first state, its shardings, train step, evaluation), each compiled once."""
    block = {"strategy": "pmap", "num_devices": 1, "mesh": (0, 1, 1), "canonical_shards": 0}
    block |= dict(options)
    model = models.build({**SEQ2SEQ[name], "dropout_rate": dropout_rate}, VOCAB)
    optimizer, schedule = build_optimizer(
        {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "constant"}}, 3
    )
    task, strategy = TinyTranslation(), parallel.build_strategy(block, accumulate)

    def init():
        boxed = models.init_boxed(model, jax.random.key(0))["params"]
        return create_state(boxed, optimizer, ema=True)

    step = functools.partial(
        train_step,
        model=model,
        task=task,
        rule=UpdateRule(optimizer, schedule, clip_norm=1.0, ema_decay=0.5),
        accumulate=accumulate,
        shards=block["canonical_shards"],
    )
    eval_step = strategy.eval_step(
        lambda params, batch: task.loss(model, {"params": params}, batch, None, False)
    )
    first = strategy.init(init)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, first)
    return strategy, jax.device_get(first), shardings, strategy.train_step(step), eval_step


def run(name, *, dropout_rate=0.0, steps=3, batches=None, accumulate=1, **options) -> dict:
    """A few steps; returns parameters, loss and gradient norm on the host."""
    found = programs(name, dropout_rate, accumulate, tuple(options.items()))
    strategy, first, shardings, train_on, evaluate = found
    # A copy: training gives the buffers of the state away.
    state, records = jax.device_put(first, shardings, may_alias=False), []
    batch_of = TinyTranslation().batch
    for i in range(steps):
        batch = strategy.put((batches or batch_of)(i))
        state, record = train_on(state, batch, jax.random.key(1))
        records.append(jax.device_get(record))
    evaluated = evaluate(state.params, strategy.put(batch_of(50)))
    return jax.device_get({"state": state, "records": records, "evaluated": evaluated})


@functools.cache
def alone(name: str) -> dict:
    return run(name)


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        scale = max(1e-3, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.parametrize(("name", "devices"), [("transformer", 2), *[(n, 8) for n in NAMES]])
def test_pmap_on_many_devices_equals_one(name, devices):
    assert_close(run(name, num_devices=devices), alone(name), 2e-6)


ALL_MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
MESH_CASES = [("transformer", mesh) for mesh in ALL_MESHES]
MESH_CASES += [(name, (2, 2, 2)) for name in NAMES[1:]]


@pytest.mark.parametrize(("name", "mesh"), MESH_CASES)
def test_every_mesh_equals_pmap_on_one_device(name, mesh):
    found = run(name, strategy="mesh", num_devices=int(np.prod(mesh)), mesh=mesh)
    assert_close(found, alone(name), 2e-6)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_equals_one_batch_however_uneven_the_micro_batches(accumulate):
    name = "lstm-attention" if accumulate == 4 else "transformer"
    assert_close(run(name, accumulate=accumulate), alone(name), 2e-6)


@pytest.fixture
def optimized():
    """Programs as users compile them: the others of the tests are not optimized."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    "name", [pytest.param("transformer", marks=pytest.mark.heavy), "lstm-attention"]
)
def test_canonical_shards_are_bitwise_equal_on_2_4_and_8_devices_with_dropout(name):
    options = {"canonical_shards": 8, "dropout_rate": 0.3}
    runs = [jax.tree.leaves(run(name, num_devices=n, **options)["state"]) for n in (2, 4, 8)]
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            assert one.tobytes() == two.tobytes()


def test_dropout_changes_with_the_step_and_the_device():
    one = run("transformer", dropout_rate=0.5, steps=1)["records"][0]["sums"]["loss"][0]
    same = run("transformer", dropout_rate=0.5, steps=1)["records"][0]["sums"]["loss"][0]
    spread = run("transformer", dropout_rate=0.5, steps=1, num_devices=2)["records"][0]
    assert one == same != spread["sums"]["loss"][0]


def test_rows_of_weight_zero_change_nothing():
    """A batch that does not divide is filled up, and the filling counts for nothing."""
    task = TinyTranslation()

    def short(i):
        return {k: x[:5] for k, x in task.batch(i).items()}

    expected = run("transformer", batches=short)
    assert_close(run("transformer", batches=short, num_devices=8), expected, 2e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_no_bit(poison):
    task = TinyTranslation()

    def batches(i):
        batch = task.batch(i)
        if i == 1:
            batch["weights"][0, 0] = poison
        return batch

    before = run("transformer", steps=1)
    after = run("transformer", steps=2, batches=batches)
    for part in ("params", "opt_state", "ema_params"):
        leaves = [jax.tree.leaves(getattr(found["state"], part)) for found in (before, after)]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*leaves, strict=True))
    assert after["state"].skipped == after["state"].skipped_in_row == 1
    healed = run("transformer", steps=3, batches=batches)["state"]
    assert (healed.skipped, healed.skipped_in_row, healed.step) == (1, 0, 3)


def test_clipping_rescales_to_the_norm_and_says_so():
    record = alone("transformer")["records"][0]["scalars"]
    assert record["clipped_norm"] == pytest.approx(min(1.0, record["gradient_norm"]), rel=1e-5)
    assert record["clipped"] == float(record["gradient_norm"] > 1.0)


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"num_devices": 64}, "config.parallel.num_devices is 64, but JAX sees 8 cpu device"),
        ({"num_devices": 3, "canonical_shards": 8}, "canonical_shards (8) must be a multiple"),
        ({"strategy": "mesh", "num_devices": 8, "mesh": (2, 2, 1)}, "has 4 places for 8 device"),
    ],
)
def test_devices_that_do_not_fit_are_refused(block, sentence):
    whole = {"strategy": "pmap", "num_devices": 1, "mesh": (0, 1, 1), "canonical_shards": 0}
    with pytest.raises(ConfigError) as caught:
        parallel.build_strategy(whole | block)
    assert sentence in str(caught.value)


def test_parameters_are_really_sharded():
    block = {"strategy": "mesh", "num_devices": 8, "mesh": (2, 2, 2), "canonical_shards": 0}
    strategy = parallel.build_strategy(block)
    model = models.build(SEQ2SEQ["transformer"], VOCAB)
    state = strategy.init(lambda: models.init_boxed(model, jax.random.key(0))["params"])
    kernel = state["encoder"]["layers_0"]["feed_forward"]["hidden"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    assert jnp.isfinite(kernel).all()
