"""Scores of the recurrent decoder against loops in NumPy from their formulas, in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import RECURRENT, VOCAB, make, sources
from score_cases import BEAMS, OPTIONS, B, D, E, Q, S, T, arrays, by_loop

import models
from errors import ConfigError
from models.attention.scores import COVERED, SCORES, ScoreOptions
from models.recurrent.decoder import AttentionDecoder

# Score, context_to, input_feeding.
CASES = [
    ("additive", "cell", False),
    ("additive", "output", True),
    ("covered", "cell", False),
    ("covered", "output", False),
    ("dot", "output", False),
    ("scaled_dot", "cell", False),
    ("general", "output", True),
    ("one_layer", "cell", False),
    ("location", "cell", False),
    ("local_m", "output", False),
    ("local_p", "cell", False),
    ("multi_head", "output", True),
]


def score_class(name: str):
    return COVERED["additive"] if name == "covered" else SCORES[name]


def loss_of(outputs) -> jax.Array:
    return sum((jnp.sin(out + i) ** 2).sum() for i, out in enumerate(outputs))


@functools.cache
def compiled(case: tuple):
    """(parameters, run): run gives all that a test looks at, from one compiled program."""
    name, context_to, input_feeding = case
    decoder = AttentionDecoder(
        Q, D, D, score_class(name), OPTIONS, context_to, input_feeding, dtype=jnp.float64
    )

    def start(module, x, keys, values, h, valid):
        carry = module.init_carry((jnp.zeros_like(h), h), valid)
        return carry, module.memory(keys, values, valid)

    def whole(module, x, **given):
        carry, memory = start(module, x, **given)
        return module(x, memory, carry)[1]

    def stepwise(module, x, **given):
        """BEAMS hypotheses a row: the first reads x, the other x from its end."""
        carry, memory = start(module, x, **given)
        carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, BEAMS, axis=0), carry)
        both_TRE = jnp.stack([x, x[::-1]], axis=2).reshape(T, B * BEAMS, E)
        found = []
        for x_RE in both_TRE:
            carry, outputs, weights_BHKS = module.step(carry, x_RE, memory)
            weights_BKHS = weights_BHKS.transpose(0, 2, 1, 3)
            found.append([out.reshape(B, BEAMS, -1) for out in (*outputs, weights_BKHS)])
        return [jnp.stack(out) for out in zip(*found, strict=True)]

    def run(params, given):
        def loss(params, given):
            outputs, sown = decoder.apply(
                {"params": params}, method=whole, mutable="intermediates", **given
            )
            weights = sown["intermediates"]["weights"][0]
            return loss_of(outputs), (outputs, weights)

        (total, (outputs, weights)), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            params, given
        )
        steps = decoder.apply({"params": params}, method=stepwise, **given)
        return {"loss": total, "grads": grads, "outputs": outputs, "weights": weights} | {
            "steps": steps
        }

    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), method=whole, **arrays()))
        random = np.random.default_rng(1)
        params = jax.tree.map(
            lambda leaf: random.normal(size=leaf.shape) * 0.5, nn.meta.unbox(shapes)
        )
        return params["params"], jax.jit(run)


def found_by(case: tuple, params=None, **changed) -> dict:
    with jax.enable_x64(True):
        own, run = compiled(case)
        return jax.tree.map(np.asarray, run(own if params is None else params, arrays() | changed))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_weights_equal_a_loop_over_the_formula(case):
    params, _ = compiled(case)
    found = found_by(case)
    outputs, weights = by_loop(case, params)
    np.testing.assert_allclose(np.concatenate(found["outputs"], -1), outputs, atol=1e-12)
    np.testing.assert_allclose(found["weights"], weights, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_equal_the_whole_and_hypotheses_do_not_mix(case):
    found = found_by(case)
    backwards = found_by(case, x=arrays()["x"][::-1])

    def with_weights(found):
        return *found["outputs"], found["weights"].transpose(2, 0, 1, 3).reshape(T, B, -1)

    for steps, one, other in zip(
        found["steps"], with_weights(found), with_weights(backwards), strict=True
    ):
        np.testing.assert_allclose(steps[:, :, 0], one, atol=1e-12)
        np.testing.assert_allclose(steps[:, :, 1], other, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_in_float64(case):
    """R23: along a random direction through all parameters and inputs, by differences."""
    params, _ = compiled(case)
    given = {name: value for name, value in arrays().items() if name != "valid"}
    random, tried = np.random.default_rng(2), 0
    grads = found_by(case)["grads"]
    for _ in range(3):
        way = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), (params, given))
        expected = sum(
            (a * b).sum()
            for a, b in zip(
                jax.tree.leaves(way),
                jax.tree.leaves((grads[0], {name: grads[1][name] for name in given})),
                strict=True,
            )
        )
        losses = []
        for eps in (1e-6, -1e-6):
            moved = jax.tree.map(lambda a, d, eps=eps: a + eps * d, (params, given), way)
            losses.append(found_by(case, moved[0], **moved[1])["loss"])
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, rel=1e-6)
        tried += 1
    print(f"{tried} directions")
    if case[0] == "one_layer":  # the softmax takes away what is the same at all positions
        assert np.abs(grads[0]["score"]["query"]).max() < 1e-12


@pytest.mark.parametrize("case", CASES, ids=str)
def test_neither_padding_nor_the_future_matters(case):
    found, given = found_by(case), arrays()
    noise = {n: given[n] + 9 * (1 - given["valid"])[..., None] for n in ("keys", "values")}
    for out, expected in zip(found_by(case, **noise)["outputs"], found["outputs"], strict=True):
        assert (out == expected).all()
    x_TBE = given["x"].copy()
    x_TBE[2] += 1.0
    for out, expected in zip(found_by(case, x=x_TBE)["outputs"], found["outputs"], strict=True):
        assert (out[:2] == expected[:2]).all()
    assert np.abs(found_by(case, x=x_TBE)["outputs"][0][2:] - found["outputs"][0][2:]).min() > 0


# ------------------------------------------------------------------ limits


def weights_by(name: str, params=None, options=OPTIONS, valid=None, states=(), keys=None):
    """The weights_BHS of one query by a score alone, float32."""
    kind, given = score_class(name), arrays()
    score = kind(Q, D, D, options)
    keys = jnp.asarray(given["keys"] if keys is None else keys, jnp.float32)
    valid = jnp.asarray(given["valid"] if valid is None else valid, jnp.float32)

    @jax.jit
    def run(params, keys, valid, query):
        def body(score):
            weights = score.weights()
            shared = {**score.memory(keys, keys), **score.shared(), "valid": valid}
            state = {**kind.init_state(valid, jnp.float32), **dict(states)}
            return kind.attend(lambda n, h: h @ weights[n], shared, state, query)[1]

        if params is None:
            params = score.init(jax.random.key(0), method=body)
        return score.apply(params, method=body)

    params = None if params is None else {"params": params}
    return np.asarray(run(params, keys, valid, jnp.asarray(given["h"], jnp.float32)))


def test_wide_windows_are_global_attention():
    """The bell of local_p is flat in a window that is wide beyond measure."""
    random = np.random.default_rng(3)
    key = {"kernel": random.normal(size=(D, Q)).astype(np.float32)}
    place = {"place_hidden": np.ones((Q, Q), np.float32), "place_v": np.ones(Q, np.float32)}
    general = weights_by("general", {"key": key})
    np.testing.assert_allclose(
        weights_by("local_m", {"key": key}, ScoreOptions(window_radius=S)), general, atol=1e-6
    )
    wide = ScoreOptions(window_radius=10_000)
    np.testing.assert_allclose(
        weights_by("local_p", {"key": key, **place}, wide), general, atol=1e-6
    )
    folded = {"kernel": np.concatenate([np.eye(Q), np.eye(Q)]).astype(np.float32)}
    np.testing.assert_allclose(weights_by("general", {"key": folded}), weights_by("dot"), atol=1e-6)


def test_one_head_is_a_scaled_general_score():
    random = np.random.default_rng(4)
    w_query, w_key = random.normal(size=(Q, D)), random.normal(size=(D, D))
    params = {"query": w_query, "key": {"kernel": w_key}, "value": {"kernel": np.eye(D)}}
    params = jax.tree.map(lambda a: a.astype(np.float32), params)
    found = weights_by("multi_head", params, ScoreOptions(num_heads=1))
    as_one = {"key": {"kernel": (w_key @ w_query.T / np.sqrt(D)).astype(np.float32)}}
    np.testing.assert_allclose(found, weights_by("general", as_one), atol=1e-5)


def test_equal_scores_are_the_mean_and_coverage_of_weight_zero_is_none():
    mean = (arrays()["valid"] / arrays()["valid"].sum(1, keepdims=True))[:, None]
    zeros = {"query": np.zeros((Q, S), np.float32)}
    options = ScoreOptions(max_positions=S)
    np.testing.assert_allclose(weights_by("location", zeros, options), mean, atol=1e-6)
    np.testing.assert_allclose(weights_by("dot", keys=np.ones((B, S, D))), mean, atol=1e-6)
    random = np.random.default_rng(5)
    shapes = {"query": (Q, Q), "v": (Q,)}
    params = {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    params["key"] = {"kernel": np.ones((D, Q), np.float32), "bias": np.zeros(Q, np.float32)}
    states = {"covered": jnp.asarray(random.random((B, S)), jnp.float32)}.items()
    plain = weights_by("additive", params)
    for weight, same in ((0.0, True), (1.0, False)):
        params["coverage"] = np.full(Q, weight, np.float32)
        found = weights_by("covered", params, states=states)
        assert np.allclose(found, plain, atol=1e-6) == same


@pytest.mark.parametrize("name", [*SCORES, "covered"])
def test_a_source_without_words_gives_zeros_and_no_nan(name):
    weights_BHS = weights_by(name, valid=np.zeros((B, S)))
    assert (weights_BHS == 0).all()


def test_a_reversed_encoder_is_a_forward_one_on_the_reversed_source():
    """Sutskever et al. 2014, 3.3: the words turned round, the padding where it is."""
    block = {"name": "recurrent_seq2seq", "attention": "none", "num_encoder_layers": 2, **RECURRENT}
    source_BS = sources()
    turned_BS = source_BS.copy()
    for row in turned_BS:
        words = row[row != 0]
        row[: len(words)] = words[::-1]
    last = []
    for encoder, read_BS in (("reversed", source_BS), ("forward", turned_BS)):
        model, variables = make({**block, "encoder": encoder})
        encode = jax.jit(lambda v, s, model=model: model.apply(v, s, method="encode")["last"])
        last.append(encode(variables, read_BS))
    np.testing.assert_allclose(*last, atol=1e-6)


# ------------------------------------------------------------------ options

BAD = [
    ({"attention": "aditive"}, "Did you mean 'additive'?"),
    ({"num_heads": 2}, "num_heads=2 needs 'multi_head'"),
    ({"attention": "multi_head", "num_heads": 5}, "num_heads must divide"),
    ({"attention": "dot", "coverage": True}, "coverage needs one of: additive, concat"),
    ({"attention": "none", "context_to": "output"}, "context_to='output' needs attention"),
    ({"attention": "none", "copy": True}, "copy=True needs attention"),
    ({"attention": "none", "coverage_weight": 1.0}, "coverage_weight=1.0 needs attention"),
    ({"coverage_weight": -1.0}, "config.model.coverage_weight must be"),
    ({"input_feeding": True}, "context_to='output'"),
    ({"context_to": "input"}, "Known: cell, output"),
    ({"window_radius": 0}, "config.model.window_radius must be"),
    ({"encoder": "backwards"}, "Known: "),
]


def test_bad_combinations_are_one_line():
    for options, words in BAD:
        with pytest.raises(ConfigError) as caught:
            models.build({"name": "recurrent_seq2seq", **RECURRENT, **options}, VOCAB)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    print(f"{len(BAD)} blocks")
