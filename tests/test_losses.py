"""The chunked cross-entropy against optax on all logits at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.ours import MESH
from experiments.planning.programs import read_program
from tasks import losses
from training import parallel


def reference(x_ND, kernel_VD, targets_N, weights_N, smoothing):
    logits_NV = x_ND @ kernel_VD.T
    onehot_NV = optax.smooth_labels(jax.nn.one_hot(targets_N, kernel_VD.shape[0]), smoothing)
    loss_N = optax.softmax_cross_entropy(logits_NV, onehot_NV)
    nll_N = optax.softmax_cross_entropy_with_integer_labels(logits_NV, targets_N)
    hits_N = logits_NV.argmax(-1) == targets_N
    sums = (loss_N, nll_N, hits_N)
    return dict(zip(("loss", "nll", "hits"), [(s * weights_N).sum() for s in sums], strict=True))


def case(num: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), 4)
    x_ND = jax.random.normal(keys[0], (num, 8))
    kernel_VD = jax.random.normal(keys[1], (11, 8))
    targets_N = jax.random.randint(keys[2], (num,), 0, 11)
    weights_N = (jax.random.uniform(keys[3], (num,)) > 0.3).astype(jnp.float32)
    return x_ND, kernel_VD, targets_N, weights_N


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num", [1, 7, 16, 33])
def test_values_and_gradients_equal_optax(monkeypatch, num, smoothing):
    monkeypatch.setattr(losses, "CHUNK", 16)
    x_ND, kernel_VD, targets_N, weights_N = case(num)
    found = losses.cross_entropy(x_ND, kernel_VD, targets_N, weights_N, smoothing)
    expected = reference(x_ND, kernel_VD, targets_N, weights_N, smoothing)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)

    def gradients(function):
        def loss(x, kernel):
            return 3.0 * function(x, kernel, targets_N, weights_N, smoothing)["loss"]

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x_ND, kernel_VD)

    for one, other in zip(gradients(losses.cross_entropy), gradients(reference), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_bias_of_the_logits_is_one_more_feature(monkeypatch, smoothing):
    monkeypatch.setattr(losses, "CHUNK", 16)
    x_ND, kernel_VD, targets_N, weights_N = case(33)
    bias_V = jnp.arange(11.0) / 3 - 2

    def with_bias(x, kernel, bias):
        sums = losses.cross_entropy(x, kernel, targets_N, weights_N, smoothing, bias)
        nll_N = losses.token_nll(x, kernel, targets_N, weights_N, bias)
        return sums["loss"] + 2 * nll_N.sum(), (sums["nll"], nll_N)

    def with_feature(x, kernel, bias):
        x = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
        kernel = jnp.concatenate([kernel, bias[:, None]], axis=1)
        sums = reference(x, kernel, targets_N, weights_N, smoothing)
        nll_N = optax.softmax_cross_entropy_with_integer_labels(x @ kernel.T, targets_N)
        nll_N = jnp.where(weights_N > 0, nll_N, 0)
        return sums["loss"] + 2 * nll_N.sum(), (sums["nll"], nll_N)

    def gradients(function):
        run = jax.value_and_grad(function, argnums=(0, 1, 2), has_aux=True)
        return jax.tree.leaves(jax.jit(run)(x_ND, kernel_VD, bias_V))

    for one, other in zip(gradients(with_bias), gradients(with_feature), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_without_a_kernel_equal_optax(smoothing):
    _, _, targets_N, weights_N = case(11)
    logits_NV, same_VV = 3 * jax.random.normal(jax.random.key(5), (11, 11)), jnp.eye(11)

    def both(function, kernel):
        def loss(logits_NV):
            sums = function(logits_NV, kernel, targets_N, weights_N, smoothing)
            return sums["loss"], sums

        return jax.jit(jax.grad(loss, has_aux=True))(logits_NV)

    found, expected = both(losses.cross_entropy, None), both(reference, same_VV)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_token_of_weight_zero_counts_for_nothing_even_as_nan():
    x_ND, kernel_VD, targets_N, weights_N = case(20)
    poisoned_ND = jnp.where(weights_N[:, None] > 0, x_ND, jnp.nan)

    def loss(x, kernel):
        return losses.cross_entropy(x, kernel, targets_N, weights_N)["loss"]

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    one, other = both(x_ND, kernel_VD), both(poisoned_ND, kernel_VD)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_in_bfloat16_have_the_type_of_what_they_belong_to():
    x_ND, kernel_VD, targets_N, weights_N = case(20)
    x_ND = x_ND.astype(jnp.bfloat16)

    def loss(x, kernel):
        return losses.cross_entropy(x, kernel, targets_N, weights_N)["loss"]

    dx_ND, dkernel_VD = jax.grad(loss, argnums=(0, 1))(x_ND, kernel_VD)
    assert dx_ND.dtype == jnp.bfloat16
    assert dkernel_VD.dtype == jnp.float32


@pytest.mark.parametrize("num", [1, 16, 33])
def test_the_loss_of_each_token_equals_optax(monkeypatch, num):
    monkeypatch.setattr(losses, "CHUNK", 16)
    x_ND, kernel_VD, targets_N, weights_N = case(num)
    found_N = losses.token_nll(x_ND, kernel_VD, targets_N, weights_N)
    logits_NV = x_ND @ kernel_VD.T
    nll_N = optax.softmax_cross_entropy_with_integer_labels(logits_NV, targets_N)
    np.testing.assert_allclose(found_N, jnp.where(weights_N > 0, nll_N, 0), rtol=1e-5, atol=1e-6)
    assert (found_N == 0).sum() == (weights_N == 0).sum()


def messages(num: int) -> set[tuple]:
    """Collectives among devices with tokens of their own, in an update of an output layer on eight
    devices of which pairs share the vocabulary."""
    strategy = parallel.build_strategy({**MESH, "num_devices": 8, "mesh": (2, 2, 2)})

    def init():
        return {"kernel": nn.LogicallyPartitioned(jnp.ones((16, 8)), ("vocab", "embed"))}

    def update(state, batch, key, axis_name):
        def loss(kernel_VD):
            return losses.cross_entropy(batch["x"], kernel_VD, batch["y"], batch["w"])["loss"]

        found, grads = jax.value_and_grad(loss)(state["kernel"])
        return {"kernel": state["kernel"] - grads}, found

    ids_N, state = np.zeros(num, np.int32), strategy.abstract(init)
    batch = {"x": np.ones((num, 8), np.float32), "y": ids_N, "w": ids_N.astype(np.float32)}
    step = strategy.train_step(update)
    program = step.lower(state, strategy.shapes(batch), jax.random.key(0)).compile()
    found = read_program(program.as_text()).collectives
    return {(one.kind, one.members, one.number) for one in found if one.members != (0, 1)}


def test_nothing_is_sent_for_each_chunk(monkeypatch):
    """The matrix is gathered, and its gradient summed over devices, once for all chunks."""
    monkeypatch.setattr(losses, "CHUNK", 4)
    assert messages(64) == messages(256) != set()
