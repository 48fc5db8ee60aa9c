"""A step does not depend on how it is spread over devices and micro-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import SEQ2SEQ, VOCAB
from parallel_cases import TinyTranslation, alone, assert_close, run

import models
from errors import ConfigError
from training import parallel

NAMES = ["transformer", "transformer-scan-remat", "lstm-attention"]


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
