"""Options of the Transformer against formulas, and against the same model with other weights."""

import functools
import math

import jax
import numpy as np
import pytest
from family_cases import TRANSFORMER
from flax.traverse_util import flatten_dict, unflatten_dict
from model_cases import apply, make, tokens

from models.layers import RMSNorm
from models.transformer.block import ACTIVATIONS, GATED, FeedForward

LM = {"name": "transformer_lm", "num_layers": 1, "tie_embeddings": False, **TRANSFORMER}
D, K = 16, 8


def changed(variables: dict, **factors: float) -> dict:
    """Variables with arrays whose path has a word in it multiplied by its factor."""
    flat = flatten_dict(variables)
    for word, factor in factors.items():
        found = [path for path in flat if word in path]
        assert found, word
        flat |= {path: flat[path] * np.float32(factor) for path in found}
    return unflatten_dict(flat)


def without_biases(variables: dict) -> dict:
    """No biases but those of norms."""
    flat = flatten_dict(variables)
    return unflatten_dict(
        {p: x for p, x in flat.items() if p[-1] != "bias" or any("norm" in name for name in p)}
    )


# Options, and what makes the default model equal to it: factors of its arrays and of its logits.
SCALES = [
    ({"scale_attention": False}, {"query": K**0.5}, 1.0),
    ({"scale_embeddings": False}, {"embedding": D**-0.5}, 1.0),
    ({"scale_output": True}, {}, D**-0.5),
]


@pytest.mark.parametrize(("options", "factors", "of_logits"), SCALES)
def test_a_scale_is_one_of_the_weights(options, factors, of_logits):
    model, variables = make({**LM, **options})
    plain, _ = make(LM)
    inputs_BT = tokens(2, 6)
    expected = of_logits * apply(plain, changed(variables, **factors), inputs_BT)
    np.testing.assert_allclose(apply(model, variables, inputs_BT), expected, atol=1e-5)
    assert np.abs(apply(plain, variables, inputs_BT) - expected).max() > 1e-3


@pytest.mark.parametrize("activation", ["relu", "gated_gelu"])
def test_no_bias_is_a_bias_of_zeros(activation):
    model, variables = make({**LM, "activation": activation, "use_bias": False})
    biased, with_biases = make({**LM, "activation": activation})
    zeros = changed(with_biases, **dict.fromkeys(["self_attention", "feed_forward"], 0.0))
    assert flatten_dict(without_biases(zeros)).keys() == flatten_dict(variables).keys()
    merged = unflatten_dict(flatten_dict(zeros) | flatten_dict(variables))
    inputs_BT = tokens(2, 6)
    expected = apply(biased, merged, inputs_BT)
    np.testing.assert_allclose(apply(model, variables, inputs_BT), expected, atol=1e-5)


def test_a_bias_of_the_logits_is_added_whole_and_by_steps():
    model, variables = make({**LM, "use_output_bias": True})
    plain, _ = make(LM)
    bias_V = variables["params"]["logits_bias"]
    inputs_BT = tokens(2, 3)
    expected = apply(plain, variables, inputs_BT) + bias_V
    np.testing.assert_allclose(apply(model, variables, inputs_BT), expected, atol=1e-5)
    step = jax.jit(functools.partial(model.apply, method="step"))
    _, logits_BV = step(variables, model.init_carry(2, 3), inputs_BT[:, 0])
    np.testing.assert_allclose(logits_BV, expected[:, 0], atol=1e-5)


def test_rms_norm_is_its_formula():
    x_BD = np.random.default_rng(0).normal(2, 3, (4, D)).astype(np.float32)
    scale_D = np.arange(D, dtype=np.float32)
    found = RMSNorm(epsilon=0.1).apply({"params": {"scale": scale_D}}, x_BD)
    expected = scale_D * x_BD / np.sqrt((x_BD**2).mean(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def by_hand(name: str, x: float) -> float:
    cubic = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return {
        "relu": max(x, 0),
        "gelu": x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + math.tanh(cubic)) / 2,
        "swish": x / (1 + math.exp(-x)),
    }[name]


@pytest.mark.parametrize("name", [*ACTIVATIONS, *GATED])
def test_the_feed_forward_layer_is_its_formula(name):
    model, variables = make({**LM, "activation": name})
    params = variables["params"]["decoder"]["layers_0"]["feed_forward"]
    x_BTD = np.random.default_rng(1).normal(size=(1, 3, D)).astype(np.float32)

    def dense(part: str, x):
        return x @ params[part]["kernel"] + params[part]["bias"]

    hidden = np.vectorize(lambda x: by_hand(GATED.get(name, name), x))(dense("hidden", x_BTD))
    if name in GATED:
        hidden = hidden * dense("linear", x_BTD)
    found = FeedForward(model._options()).apply({"params": params}, x_BTD)
    np.testing.assert_allclose(found, dense("out", hidden), atol=1e-5)


def test_a_norm_after_the_embeddings_takes_their_scale_away():
    block = {**LM, "positions": "none", "embedding_norm": True}
    model, variables = make(block)
    louder = changed(variables, embedding=3.0)
    inputs_BT = tokens(2, 6)
    expected = apply(model, variables, inputs_BT)
    np.testing.assert_allclose(apply(model, louder, inputs_BT), expected, atol=1e-4)
    plain, _ = make({**LM, "positions": "none"})
    assert np.abs(apply(plain, louder, inputs_BT) - apply(plain, variables, inputs_BT)).max() > 1e-3
