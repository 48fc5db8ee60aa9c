"""Recurrence: its gradients in float64, recomputation in chunks, cuDNN's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_cases import OPTIONS, B, D, H, T, make
from jax.experimental import rnn

from errors import ConfigError
from models.recurrent import cudnn
from models.recurrent.layer import RecurrentLayer, _step_of
from models.recurrent.options import CellOptions
from models.recurrent.scan import hoisted_scan

WITH_NOISE = {**OPTIONS, "noisy": {"zoneout_rate": 0.2, "variational_dropout_rate": 0.2}}
VALID_TB = np.arange(T)[:, None] < np.array([T, T - 2, T - 1])
RESETS_TB = np.eye(T, B, -1, dtype=bool)


def close(found, expected, **tolerance):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.mark.parametrize("name", OPTIONS)
def test_float64_gradients_equal_finite_differences(name):
    """R23, through padding, resets and the first state, in a random direction."""
    with jax.enable_x64(True):
        layer, params, x_TBD = make(name, jnp.float64, reverse=name == "gru")
        carry = jax.tree.map(
            lambda leaf: leaf + 0.1, layer.bind({"params": params}).unit.start(x_TBD[0, :, :1])
        )
        carry = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (B, H)), carry)
        scale = jax.random.normal(jax.random.key(9), (T, B, H), jnp.float64)

        @jax.jit
        def loss(arguments):
            params, x_TBD, carry = arguments
            ends, y_TBH = layer.apply({"params": params}, x_TBD, VALID_TB, False, RESETS_TB, carry)
            return (y_TBH * scale).sum() + sum((end**2).sum() for end in ends)

        point = (params, x_TBD, carry)
        leaves, tree = jax.tree.flatten(point)
        keys = jax.random.split(jax.random.key(4), len(leaves))
        way = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        length = sum((w**2).sum() for w in way) ** 0.5
        way = [w / length for w in way]
        assert all(leaf.dtype == jnp.float64 for leaf in leaves)

        def at(step):
            return loss(tree.unflatten([x + step * w for x, w in zip(leaves, way, strict=True)]))

        near, far = at(1e-4) - at(-1e-4), at(2e-4) - at(-2e-4)
        numeric = (8 * near - far) / 12e-4  # its error is of the fourth order
        gradient = jax.tree.leaves(jax.jit(jax.grad(loss))(point))
        along = sum((g * w).sum() for g, w in zip(gradient, way, strict=True))
        np.testing.assert_allclose(along, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["rnn", "lstm", "lstm-norm-peepholes", "gru-norm-bias", "noisy"])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_custom_gradient_equals_that_of_a_plain_scan(name, reverse):
    """R23: in float64, for weights, vectors, first state and inputs."""
    with jax.enable_x64(True):
        options = CellOptions(**WITH_NOISE[name])
        layer = RecurrentLayer(H, options, reverse, jnp.float64)
        x_TBD = jax.random.normal(jax.random.key(0), (T, B, D), jnp.float64)
        rngs = {"params": jax.random.key(1), "dropout": jax.random.key(2)}

        def arguments(layer):
            x, each, every = layer.unit.noise(x_TBD, True)
            xs = {"gates": layer.unit.inputs(x), **each}
            xs["valid"], xs["keep"] = VALID_TB[..., None] * 1.0, 1.0 - RESETS_TB[..., None]
            carry = layer.unit.start(x[0, :, :1] * jnp.ones(H))
            return layer.unit.weights(), {**layer.unit.shared(), **every}, carry, xs

        found, _ = layer.init_with_output(rngs, method=arguments)
        step = _step_of(options)

        def plain(weights, shared, carry, xs):
            def body(carry, x):
                return step(lambda name, h: h @ weights[name], shared, carry, x)

            return jax.lax.scan(body, carry, xs, reverse=reverse)

        def hoisted(*arguments):
            return hoisted_scan(step, reverse, *arguments)

        def loss(run, *arguments):
            carry, y_TBH = run(*arguments)
            return (y_TBH**2).sum() + sum(jnp.sin(end).sum() for end in carry)

        by_hand, by_jax = (
            jax.jit(jax.value_and_grad(lambda *a, run=run: loss(run, *a), (0, 1, 2, 3)))(*found)
            for run in (hoisted, plain)
        )
        assert jax.tree.structure(by_hand) == jax.tree.structure(by_jax)
        close(by_hand, by_jax, rtol=1e-10, atol=1e-12)


def loss_of(layer, valid_TB, train=True):
    def loss(params, x_TBD):
        rngs = {"dropout": jax.random.key(3)}
        (*_, last), y_TBH = layer.apply({"params": params}, x_TBD, valid_TB, train, rngs=rngs)
        return (y_TBH**2).sum() + (last**3).sum()

    return jax.value_and_grad(loss, (0, 1))


@pytest.mark.parametrize("chunk", [2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_change_nothing(chunk, reverse):
    """11 steps: five chunks and a rest of one, and two and a rest of one."""
    x_TBD = jax.random.normal(jax.random.key(0), (11, B, D))
    valid_TB = np.arange(11)[:, None] < np.array([11, 6, 9])
    noisy = {**WITH_NOISE["noisy"], "layer_norm": True}
    whole, chunked = (
        RecurrentLayer(H, CellOptions(**noisy, remat_chunk=size), reverse) for size in (0, chunk)
    )
    params = whole.init(jax.random.key(1), x_TBD)["params"]
    assert jax.tree.structure(chunked.init(jax.random.key(1), x_TBD)["params"]) == (
        jax.tree.structure(params)
    )
    found, expected = (
        jax.jit(loss_of(layer, valid_TB))(params, x_TBD) for layer in (chunked, whole)
    )
    close(found, expected, rtol=1e-5, atol=1e-5)


def temporary_bytes(layer, length, rows=8):
    x_TBD = jax.ShapeDtypeStruct((length, rows, D), jnp.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x_TBD)["params"]
    compiled = jax.jit(loss_of(layer, None, train=False)).lower(params, x_TBD).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_chunks_take_the_memory_of_a_root_and_4096_steps_train():
    width, rows, length = 32, 8, 4096
    whole, chunked = (RecurrentLayer(width, CellOptions(remat_chunk=size)) for size in (0, 64))
    state = length * rows * width * 4  # the outputs, or any other vector of all steps
    kept, recomputed = temporary_bytes(whole, length), temporary_bytes(chunked, length)
    print(f"{kept / state:.1f} and {recomputed / state:.1f} states a step")
    assert recomputed < 0.25 * kept
    assert recomputed < 4 * state
    assert temporary_bytes(chunked, length // 4) < 0.4 * recomputed
    x_TBD = jax.random.normal(jax.random.key(0), (length, rows, D))
    params = chunked.init(jax.random.key(1), x_TBD)["params"]
    loss, gradients = jax.jit(loss_of(chunked, None, train=False))(params, x_TBD)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def with_cudnn_layout(x, h, c, weights, lengths, *sizes):
    """What cuDNN computes, by JAX's reference, from the same flat weights."""
    width, hidden, layers, dropout, both = sizes
    parts = rnn.unpack_lstm_weights(weights, width, hidden, layers, both)
    return rnn.lstm_ref(x, h, c, *parts, lengths, width, hidden, layers, dropout, both)


def through_cudnn(layer, params, x_TBD, valid_TB, kernel=None):
    unit = layer.bind({"params": params}).unit
    carry = unit.start(jnp.full((B, H), 0.3))
    xs = {"inputs": x_TBD, "valid": valid_TB[..., None].astype(jnp.float32)}
    return cudnn.layer(unit.matrices(), layer.reverse, carry, xs, kernel)


def check_cudnn(reverse, kernel, tolerance):
    layer, params, x_TBD = make("lstm", reverse=reverse)
    valid_TB = jnp.asarray(np.arange(T)[:, None] < np.array([T, 2, 0]))

    def through_ours(layer, params, x_TBD, valid_TB, kernel):
        carry = layer.bind({"params": params}).unit.start(jnp.full((B, H), 0.3))
        ends, y_TBH = layer.apply({"params": params}, x_TBD, valid_TB, False, None, carry)
        return ends, jnp.where(valid_TB[..., None], y_TBH, 0)

    def loss(params, x_TBD, run):
        ends, y_TBH = run(layer, params, x_TBD, valid_TB, kernel)
        y_TBH = jnp.where(valid_TB[..., None], y_TBH, 0)
        return (y_TBH**2).sum() + sum(jnp.sin(end).sum() for end in ends), (ends, y_TBH)

    found, expected = (
        jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2)(
            params, x_TBD, run
        )
        for run in (through_cudnn, through_ours)
    )
    close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("reverse", [False, True])
def test_weights_in_the_layout_of_cudnn_give_the_same_layer(reverse):
    check_cudnn(reverse, with_cudnn_layout, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True])
def test_cudnn_gives_the_same_layer(reverse):
    with jax.default_matmul_precision("highest"):
        check_cudnn(reverse, None, 1e-4)


def test_cudnn_refuses_packed_rows_and_other_types():
    layer, params, x_TBD = make("lstm")
    unit = layer.bind({"params": params}).unit
    carry = unit.start(jnp.zeros((B, H)))
    with pytest.raises(ConfigError, match="cannot clear a state within a packed row"):
        cudnn.layer(unit.matrices(), False, carry, {"inputs": x_TBD, "keep": x_TBD})
    with pytest.raises(ConfigError, match="needs config"):
        cudnn.layer(unit.matrices(), False, carry, {"inputs": x_TBD.astype(jnp.bfloat16)})
