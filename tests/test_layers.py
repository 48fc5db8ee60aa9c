"""Layers on their own: dropout's mask, layer norm, dense products."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import layers
from models.layers import Dense, Dropout, LayerNorm, hashed_bits, logits, product


def dropped(rate: float, key: int, shape=(200, 64)) -> np.ndarray:
    layer = Dropout(rate)
    return np.asarray(layer.apply({}, jnp.ones(shape), True, rngs={"dropout": jax.random.key(key)}))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_has_its_rate_keeps_the_mean_and_is_off_without_training(rate):
    masks = np.stack([dropped(rate, key) for key in range(20)])
    deviation = np.sqrt(rate * (1 - rate) / masks.size)
    assert abs((masks == 0).mean() - rate) < 5 * deviation
    np.testing.assert_allclose(masks[masks > 0], 1 / (1 - rate), rtol=1e-6)
    assert (Dropout(rate).apply({}, jnp.ones(3), False) == 1).all()


def test_masks_of_neighbouring_keys_and_places_do_not_correlate():
    """All pairs of 40 keys, of 64 columns, of 200 rows and of 32 bits: 5 deviations at most."""
    masks = np.stack([dropped(0.5, key) for key in range(40)]) - 1.0
    pairs = 0
    for axis in (0, 1, 2):
        rows = np.moveaxis(masks, axis, 0).reshape(masks.shape[axis], -1)
        found = (rows @ rows.T / rows.shape[1])[np.triu_indices(len(rows), 1)]
        assert np.abs(found).max() < 5.5 / np.sqrt(rows.shape[1])
        pairs += found.size
    bits = np.asarray(hashed_bits(jax.random.key(3), (1 << 16,)))
    columns = ((bits[:, None] >> np.arange(32)) & 1) - 0.5
    found = (columns.T @ columns / len(bits) * 4)[np.triu_indices(32, 1)]
    assert np.abs(found).max() < 5.5 / np.sqrt(len(bits))
    print(f"{pairs + found.size} pairs")


def test_layer_norm_equals_flax():
    x = jax.random.normal(jax.random.key(0), (3, 5, 8)) * 3 + 1
    ours, theirs = LayerNorm(), nn.LayerNorm(epsilon=1e-6)
    params = {"scale": jnp.arange(8.0), "bias": jnp.ones(8)}
    found = ours.apply({"params": params}, x)
    np.testing.assert_allclose(found, theirs.apply({"params": params}, x), atol=1e-5)


def test_dense_equals_einsum_over_several_axes():
    layer = Dense((2, 3), ("embed", "heads", "kv"))
    x = jax.random.normal(jax.random.key(0), (4, 5, 6))
    params = nn.meta.unbox(layer.init(jax.random.key(1), x))["params"]
    params["bias"] = jnp.arange(6.0).reshape(2, 3)
    expected = jnp.einsum("btd,dhk->bthk", x, params["kernel"]) + params["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)
    back = Dense((6,), ("heads", "kv", "embed"), num_in=2)
    variables = nn.meta.unbox(back.init(jax.random.key(2), expected))
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (2, 3, 6)
    found = back.apply(variables, expected)
    np.testing.assert_allclose(found, jnp.einsum("bthk,hkd->btd", expected, kernel), atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "inputs", "features"), [(40, 32, 8), (40, 8, 32), (32, 32, 8), (40, 8, 8)]
)
def test_a_product_is_the_same_however_its_gradient_is_made(rows, inputs, features):
    """Only the first is turned: a kernel that narrows, under more rows than it is high."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((rows, inputs), (inputs, features), (rows, features))
    x, kernel, gradient = (jax.random.normal(*both) for both in zip(keys, sizes, strict=True))
    y, pull = jax.vjp(product, x, kernel)
    for got, wanted in zip(
        (y, *pull(gradient)), (x @ kernel, gradient @ kernel.T, x.T @ gradient), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    turned = "optimization_barrier" in str(jax.make_jaxpr(product)(x, kernel))
    assert turned is (rows == 40 and inputs == 32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rows", [1, layers.FEW_ROWS, layers.FEW_ROWS + 1])
def test_logits_of_few_rows_and_of_many_are_products_with_the_table(rows, dtype):
    x_BD = jax.random.normal(jax.random.key(0), (rows, 16)).astype(dtype)
    table_VD = jax.random.normal(jax.random.key(1), (50, 16))
    bias_V = jnp.arange(50.0)
    wanted = x_BD.astype(jnp.float32) @ table_VD.astype(dtype).astype(jnp.float32).T + bias_V
    got = jax.jit(logits)(x_BD, table_VD, bias_V)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5 if dtype == jnp.float32 else 0.1)
    turned = "optimization_barrier" in str(jax.make_jaxpr(logits)(x_BD, table_VD))
    assert turned is (rows <= layers.FEW_ROWS)


def test_what_is_planned_for_another_platform_is_not_turned():
    """A plan compiles for a TPU on a machine that has none."""
    x, kernel = jnp.ones((40, 32)), jnp.ones((32, 8))
    for platform, turned in (("cpu", True), ("tpu", False), ("", True)):
        with layers.compiled_for(platform):
            text = str(jax.make_jaxpr(lambda x, k: (product(x, k), logits(x[:2], k.T)))(x, kernel))
        assert ("optimization_barrier" in text) is turned
