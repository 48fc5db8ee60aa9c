"""The pointer and the coverage loss of See et al. (2017), against loops and in their limits."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import SEQ2SEQ, VOCAB, apply, make, sources, tokens

from analysis.attention import attention_weights, heads_across
from analysis.heads import Heads
from models.recurrent.pointer import Pointer, coverage_loss
from tasks import losses

B, T, S, V, D, H = 2, 3, 5, 7, 4, 2
SOURCE_BS = np.array([[4, 5, 4, 6, 3], [6, 3, 0, 0, 0]], np.int32)  # a word twice; padding
COPIES = ("lstm-attention-copy", "lstm-attention-copy-luong")


def case(bias: float = 0.3) -> dict[str, np.ndarray]:
    """Arguments of a pointer in float64, and its parameters."""
    random = np.random.default_rng(0)
    weights_BHTS = random.random((B, H, T, S)) * (SOURCE_BS != 0)[:, None, None]
    weights_BHTS /= weights_BHTS.sum(-1, keepdims=True)
    weights_BHTS[0, :, 0] = np.eye(S)[1]  # all on one word: the others have exactly 0
    return {
        "logits": random.normal(size=(B, T, V)) * 3,
        "x": random.normal(size=(B, T, D)),
        "weights": weights_BHTS,
        "kernel": random.normal(size=(D, 1)),
        "bias": np.array([bias]),
    }


@jax.jit
def log_probs_and_p_gen(given: dict) -> tuple:
    pointer = Pointer(jnp.float64)
    params = {"gate": {"kernel": given["kernel"], "bias": given["bias"]}}
    arguments = given["logits"], given["x"], given["weights"], SOURCE_BS
    out, sown = pointer.apply({"params": params}, *arguments, mutable="intermediates")
    return out, sown["intermediates"]["p_gen"][0]


def by_loop(given: dict) -> tuple[np.ndarray, np.ndarray]:
    """(P, p_gen) one place, head and source word at a time."""
    found, gates = np.zeros((B, T, V)), np.zeros((B, T))
    for b in range(B):
        for t in range(T):
            score = given["x"][b, t] @ given["kernel"][:, 0] + given["bias"][0]
            gates[b, t] = 1 / (1 + np.exp(-score))
            exp = np.exp(given["logits"][b, t] - given["logits"][b, t].max())
            found[b, t] = gates[b, t] * exp / exp.sum()
            for i, word in enumerate(SOURCE_BS[b]):
                if word:
                    mean = sum(given["weights"][b, h, t, i] for h in range(H)) / H
                    found[b, t, word] += (1 - gates[b, t]) * mean
    return found, gates


def test_the_mixture_equals_a_loop_and_sums_to_one():
    with jax.enable_x64(True):
        for bias in (0.3, -30.0, 30.0):
            given = case(bias)
            found, p_gen = log_probs_and_p_gen(given)
            expected = by_loop(given)
            np.testing.assert_allclose(np.exp(found), expected[0], atol=1e-14)
            np.testing.assert_allclose(p_gen, expected[1], atol=1e-14)
            np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-14)


def test_weights_that_do_not_sum_to_one_are_divided_by_their_sum():
    with jax.enable_x64(True):
        given = case()
        expected, _ = log_probs_and_p_gen(given)
        found, _ = log_probs_and_p_gen(given | {"weights": given["weights"] * 0.25})
        np.testing.assert_allclose(found, expected, atol=1e-12)
        nothing, p_gen = log_probs_and_p_gen(given | {"weights": given["weights"] * 0})
        np.testing.assert_allclose(np.exp(nothing).sum(-1), p_gen, atol=1e-12)


@jax.jit
def loss_and_gradient(given: dict) -> tuple:
    def loss(given):
        return (jnp.sin(jnp.arange(V)) * log_probs_and_p_gen(given)[0]).sum()

    return jax.value_and_grad(loss)(given)


@pytest.mark.parametrize("bias", [0.3, -1e4, 1e4])
def test_gradients_in_float64_are_finite_and_those_of_differences(bias):
    """Words that cannot be copied, weights of exactly 0, and a closed gate among them."""
    random = np.random.default_rng(1)
    with jax.enable_x64(True):
        given = case(bias)
        _, gradient = loss_and_gradient(given)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        if bias != 0.3:  # ln P is of the order of 1e4 there
            return
        way = {name: random.normal(size=value.shape) for name, value in given.items()}
        way["weights"] *= given["weights"]  # a weight of 0 is the edge of what can be
        ends = [
            loss_and_gradient({n: given[n] + eps * way[n] for n in given})[0]
            for eps in (1e-6, -1e-6)
        ]
        expected = sum((gradient[name] * way[name]).sum() for name in given)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(expected), rel=1e-6)


# ------------------------------------------------------------------ in a model


@functools.cache
def recorded(name: str, bias: float) -> tuple:
    """(log P, sown) of the whole target with the gate at that bias alone."""
    model, variables = make(SEQ2SEQ[name])
    gate = variables["params"]["pointer"]["gate"]
    gate |= {"kernel": jnp.zeros_like(gate["kernel"]), "bias": jnp.full(1, bias, jnp.float32)}
    arguments = model, variables, sources(), tokens(3, 7)
    out, sown = apply(*arguments, mutable="intermediates")
    return np.asarray(out), sown["intermediates"]


@pytest.mark.parametrize("name", COPIES)
def test_an_open_gate_is_the_model_without_a_pointer(name):
    _, variables = make(SEQ2SEQ[name])
    model = make(SEQ2SEQ[name] | {"copy": False})[0]
    params = {key: value for key, value in variables["params"].items() if key != "pointer"}
    expected = jax.nn.log_softmax(apply(model, {"params": params}, sources(), tokens(3, 7)))
    found, sown = recorded(name, 1e4)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (sown["pointer"]["p_gen"][0] == 1).all()


@pytest.mark.parametrize("name", COPIES)
def test_a_closed_gate_is_the_histogram_of_attention_over_the_words_of_the_source(name):
    found, sown = recorded(name, -1e4)
    weights_BTS = np.asarray(sown["attention_decoder"]["weights"][0]).mean(1)
    expected = np.zeros_like(found)
    for b, source in enumerate(sources()):
        for i, word in enumerate(source):
            expected[b, :, word] += weights_BTS[b, :, i]
    assert (expected[:, :, 0] == 0).all()
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)


@pytest.mark.parametrize("name", COPIES)
def test_a_removed_head_copies_nothing(name):
    """With no head left, P is what the vocabulary has of it: p_gen in all."""
    model, variables = make(SEQ2SEQ[name])
    heads = Heads(model, variables)
    variables = heads.masked(variables, jnp.zeros(len(heads)))
    source_BS, inputs_BT = sources(), tokens(3, 4)
    logits_BTV, sown = apply(model, variables, source_BS, inputs_BT, mutable="intermediates")
    (p_gen_BT,) = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(sown)
        if "p_gen" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(jnp.exp(logits_BTV).sum(-1), p_gen_BT, rtol=1e-5)
    encoded = model.apply(variables, source_BS, method="encode")
    carry = model.apply(variables, encoded, 4, method="init_carry")
    _, logits_BV = model.apply(variables, carry, inputs_BT[:, 0], method="step")
    np.testing.assert_allclose(logits_BV, logits_BTV[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", COPIES)
def test_hypotheses_of_a_row_copy_from_its_source_alone(name):
    """Two hypotheses a row, the second with other words; the source is kept once a row."""
    model, variables = make(SEQ2SEQ[name])
    source_BS, one_BT, other_BT = sources(), tokens(3, 7), tokens(3, 7, seed=8)

    @jax.jit
    def by_step(variables):
        encoded = model.apply(variables, source_BS, method="encode")
        carry = model.apply(variables, encoded, 7, 2, method="init_carry")
        carry["state"] = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), carry["state"])
        both_TR = jnp.stack([one_BT, other_BT], axis=1).reshape(6, 7).T

        def step(carry, token_R):
            return model.apply(variables, carry, token_R, method="step")

        carry, out_TRV = jax.lax.scan(step, carry, both_TR)
        assert carry["memory"]["source"].shape == source_BS.shape
        return out_TRV.reshape(7, 3, 2, VOCAB).transpose(2, 1, 0, 3)

    found = by_step(variables)
    for steps, inputs_BT in zip(found, (one_BT, other_BT), strict=True):
        expected = apply(model, variables, source_BS, inputs_BT)
        np.testing.assert_allclose(steps, expected, atol=1e-5)
        np.testing.assert_allclose(np.exp(steps).sum(-1), 1, atol=1e-5)


def test_alignments_leave_the_gate_out():
    model, variables = make(SEQ2SEQ["lstm-attention-copy"])
    pair = np.array([4, 5, 3], np.int32), np.array([6, 7, 8, 3], np.int32)
    weights = attention_weights(model, variables, *pair)
    assert {name: array.shape for name, array in weights.items()} == {
        "attention_decoder": (1, 4, 3)
    }
    assert len(heads_across(weights)) == 2  # and the mean


# ------------------------------------------------------------------ coverage


def test_the_coverage_loss_equals_a_loop():
    weights_BHTS = case()["weights"]
    found = coverage_loss(weights_BHTS.astype(np.float32))
    for b in range(B):
        covered = np.zeros(S)
        for t in range(T):
            row = weights_BHTS[b, :, t].mean(0)
            assert found[b, t] == pytest.approx(np.minimum(row, covered).sum(), abs=1e-6)
            covered += row
    assert found.max() > 0.3
    np.testing.assert_allclose(coverage_loss(np.eye(4, dtype=np.float32)[None, None]), 0, atol=1e-6)


def test_a_model_sows_its_coverage_loss():
    model, variables = make(SEQ2SEQ["lstm-attention-copy"])
    model = model.clone(coverage_weight=0.5)
    mutable = ("intermediates", "penalties")
    _, sown = apply(model, variables, sources(), tokens(3, 7), mutable=mutable)
    weights_BHTS = sown["intermediates"]["attention_decoder"]["weights"][0]
    (found,) = sown["penalties"]["coverage"]
    np.testing.assert_allclose(found, 0.5 * coverage_loss(weights_BHTS), atol=1e-6)


class Penalised(nn.Module):
    """Logits of its own, and a penalty at every place."""

    def features(self, penalty_BT, train):
        self.sow("penalties", "one", penalty_BT)
        return jnp.zeros((*penalty_BT.shape, V))

    def output_layer(self):
        return None

    def output_bias(self):
        return None


def test_training_adds_penalties_where_there_is_something_to_predict():
    penalty_BT = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.nan, jnp.nan]])
    weights_BT = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    batch = {"targets": jnp.ones((2, 3), jnp.int32), "weights": weights_BT}
    arguments = Penalised(), {}, (penalty_BT,), batch, jax.random.key(0)
    train, test = (losses.token_sums(*arguments, mode, 0.0) for mode in (True, False))
    nll = 3 * np.log(V)
    assert train["loss"] == (pytest.approx(nll + 7, rel=1e-6), 3)
    assert train["penalty"] == (7, 3)
    assert train["nll"] == test["loss"] == test["nll"] == (pytest.approx(nll, rel=1e-6), 3)
    assert "penalty" not in test
