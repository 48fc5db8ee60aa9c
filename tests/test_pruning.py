"""Pruning: the planted head survives every order but the random one, and smaller arrays say the
same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from head_cases import PLANTED, Pairs, copies, planted
from model_cases import LANGUAGE_MODELS, SEQ2SEQ, apply, make

import models
from analysis import gates, pruning
from analysis.heads import Heads
from errors import ConfigError
from experiments import head_pruning

TASK = Pairs()


def test_scores_give_nested_masks():
    masks = pruning.nested_masks(np.array([0.5, 2.0, 1.0, 1.0]), [4, 2, 1, 0])
    assert masks.tolist() == [[1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_iterative_pruning_keeps_the_planted_head_to_the_last():
    model, variables, found = planted()
    arguments = (TASK, model, variables, found, [copies()])
    masks = pruning.masks_by_importance(*arguments, kept=[6, 4, 1])
    assert masks.sum(1).tolist() == [6, 4, 1]
    assert (masks[1] >= masks[2]).all()
    assert found.names[masks[2].argmax()] == PLANTED
    (last_of_layers,) = pruning.masks_by_importance(*arguments, kept=[3], normalise=True)
    assert np.bincount(found.layer_of_X, last_of_layers).tolist() == [1, 1, 1]


def test_the_planted_head_has_the_largest_weights():
    model, variables, found = planted()
    norms = pruning.weight_norms(model, variables, found)
    assert found.names[norms.argmax()] == PLANTED
    params = variables["params"]["decoder"]["layers_0"]["cross_attention"]
    product = params["value"]["kernel"][:, 0] @ params["out"]["kernel"][0]
    x = found.names.index(PLANTED._replace(head=0))
    assert norms[x] == pytest.approx(np.linalg.norm(product), rel=1e-5)


RECURRENT = SEQ2SEQ["lstm-attention-copy-luong"] | {"num_heads": 4}
SMALLER = {
    **{name: SEQ2SEQ[name] for name in ("transformer", "transformer-scan-remat")},
    "context to the output, fed back": SEQ2SEQ["lstm-attention-luong"] | {"num_heads": 4},
    "context to the cell, deep, a pointer": RECURRENT | {"context_to": "cell"},
}


@pytest.mark.parametrize("name", SMALLER)
def test_a_smaller_model_says_the_same(name):
    """Whole and step by step; one layer of each Transformer has no head left."""
    model, variables = make(SMALLER[name])
    found, batch = Heads(model, variables), copies()
    mask = np.resize(np.array([1, 0, 1, 1], np.float32), len(found))
    if pruning.is_transformer(model):
        mask[-2:] = 0
    smaller, arrays = pruning.remove_heads(model, variables, mask)
    assert sum(smaller.heads_kept) == mask.sum()
    assert models.num_parameters(arrays) < models.num_parameters(variables)
    fresh = jax.eval_shape(lambda: models.init(smaller, jax.random.key(0)))
    assert jax.tree.map(np.shape, fresh) == jax.tree.map(np.shape, arrays)
    inputs = TASK.inputs(batch)
    expected = apply(model, found.masked(variables, mask), *inputs)
    np.testing.assert_allclose(apply(smaller, arrays, *inputs), expected, atol=1e-5)

    @jax.jit
    def second_step(arrays, source_BS, inputs_BT):
        encoded = smaller.apply(arrays, source_BS, method="encode")
        carry = smaller.apply(arrays, encoded, 2, method="init_carry")
        carry, _ = smaller.apply(arrays, carry, inputs_BT[:, 0], method="step")
        return smaller.apply(arrays, carry, inputs_BT[:, 1], method="step")[1]

    np.testing.assert_allclose(second_step(arrays, *inputs), expected[:, 1], atol=1e-5)


def test_a_language_model_gets_smaller():
    model, variables = make(LANGUAGE_MODELS["transformer"])
    mask = np.array([1, 0, 0, 1], np.float32)
    smaller, arrays = pruning.remove_heads(model, variables, mask)
    assert smaller.heads_kept == (1, 1)
    tokens = copies()["source"]
    expected = apply(model, Heads(model, variables).masked(variables, mask), tokens)
    np.testing.assert_allclose(apply(smaller, arrays, tokens), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"heads_kept": (1, 2)}, "for each of 5 attention layers, got"),
        ({"heads_kept": (3, 2, 2, 2, 2)}, "a number of at most 2"),
        ({"scan_layers": True, "heads_kept": (2, 2, 1, 2, 2)}, "layers that are alike"),
    ],
)
def test_wrong_numbers_of_heads_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        models.build({**SEQ2SEQ["transformer"], **options}, 13)


def test_what_cannot_be_cut_out_is_refused():
    model, variables = make(SEQ2SEQ["lstm-attention"])
    with pytest.raises(ConfigError, match="multi_head'; this is a RecurrentSeq2Seq"):
        pruning.remove_heads(model, variables, np.ones(1))
    model, variables = make(SEQ2SEQ["lstm-attention-luong"])
    with pytest.raises(ConfigError, match="needs one head at least"):
        pruning.remove_heads(model, variables, np.zeros(2))
    with pytest.raises(ConfigError, match="one number of at most num_heads"):
        models.build(SEQ2SEQ["lstm-attention-luong"] | {"heads_kept": (3,)}, 13)


@pytest.mark.parametrize("context_to", ["cell", "output"])
def test_what_a_head_of_an_rnn_can_write_at_most(context_to):
    """All matrices that read the context stand behind the values of a head."""
    block = RECURRENT | {"context_to": context_to, "copy": context_to == "cell"}
    model, variables = make(block)
    params = variables["params"]
    decoder, norms = params["attention_decoder"], []
    if context_to == "cell":  # [s; context], and [s; word; context]
        parts = [decoder["unit"]["recurrent"][16:], params["readout"]["kernel"][28:]]
        readers = np.concatenate([*parts, params["pointer"]["gate"]["kernel"][28:]], axis=1)
    else:
        readers = decoder["combine"][:32]
    value = np.asarray(decoder["score"]["value"]["kernel"])
    for h in range(4):
        rows = slice(8 * h, 8 * h + 8)  # both directions of 16
        norms.append(np.linalg.norm(value[:, rows] @ readers[rows]))
    found = pruning.weight_norms(model, variables, Heads(model, variables))
    np.testing.assert_allclose(found, norms, rtol=1e-5)


def test_hard_concrete_gates_follow_their_formulas():
    log_alpha = jnp.linspace(-3.0, 3.0, 5)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(gates.hard_concrete, (0, None))(keys, log_alpha)
    assert float(drawn.min()) == 0
    assert float(drawn.max()) == 1
    expected = 1 / (1 + np.exp(-(np.linspace(-3, 3, 5) - 0.33 * np.log(0.1 / 1.1))))
    np.testing.assert_allclose(gates.chance_open(log_alpha), expected, rtol=1e-5)
    np.testing.assert_allclose((drawn > 0).mean(0), expected, atol=0.03)


def test_top_k_draws_exactly_k_and_has_a_gradient():
    logits = jnp.array([3.0, 0.0, 0.0, -3.0])
    keys = jax.random.split(jax.random.key(1), 500)
    drawn = jax.vmap(lambda key: gates.top_k(key, logits, 2, 0.5))(keys)
    np.testing.assert_allclose(drawn.sum(1), 2, atol=1e-5)
    assert drawn.mean(0)[0] > 0.9 > 0.2 > drawn.mean(0)[3]
    gradient = jax.grad(lambda x: gates.top_k(keys[0], x, 2, 0.5) @ jnp.arange(4.0))(logits)
    assert np.abs(gradient).max() > 1e-3


def test_learned_gates_keep_the_planted_head():
    model, variables, found = planted()
    arguments = (TASK, model, variables, found, [copies()] * 40)
    mask, same = gates.learn_l0(*arguments, penalty=0.1)
    assert [found.names[x] for x in np.flatnonzero(mask)] == [PLANTED]
    assert same["params"] is variables["params"]
    logits, _ = gates.learn_top_k(*arguments, count=1)
    assert found.names[logits.argmax()] == PLANTED


@pytest.mark.parametrize("method", ["l0", "top_k"])
def test_a_model_that_learns_with_its_gates_keeps_the_planted_head_and_loses_less(method):
    model, variables, found = planted()
    variables = jax.tree.map(jnp.asarray, variables)
    variables["params"]["decoder"]["norm"]["scale"] /= 3  # less sure than it might be
    arguments = (TASK, model, variables, found, [copies()] * 60)
    options = {"tune": optax.adam(1e-3)}
    if method == "l0":
        mask, tuned = gates.learn_l0(*arguments, penalty=0.1, **options)
    else:
        logits, tuned = gates.learn_top_k(*arguments, count=1, **options)
        (mask,) = pruning.nested_masks(logits, [1])
    assert [found.names[x] for x in np.flatnonzero(mask)] == [PLANTED]

    @jax.jit
    def loss(variables):
        masked = found.masked(variables, mask)
        return TASK.token_losses(model, masked, copies())[0].sum()

    assert loss(tuned) < 0.95 * loss(variables)


def test_the_optimizer_of_the_run_tunes_at_a_small_constant_rate():
    schedule = {"name": "cosine", "warmup_steps": 5, "final_rate": 0.0}
    block = {"name": "sgd", "learning_rate": 2.0, "schedule": schedule, "clip_norm": 0.5}
    optimizer = head_pruning.tuner({"optimizer": {**block, "clip": {"name": "none"}}}, 0.1, 9)
    state, gradient = optimizer.init(jnp.zeros(2)), jnp.array([3.0, 4.0])
    for _ in range(12):  # of norm 5, clipped to 0.5
        update, state = optimizer.update(gradient, state)
        np.testing.assert_allclose(update, -0.2 * np.array([0.3, 0.4]), rtol=1e-5)
