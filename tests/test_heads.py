"""Head ablation and importance: a planted head, limits, and references written otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from head_cases import PLANTED, Pairs, copies, planted
from model_cases import LANGUAGE_MODELS, SEQ2SEQ, apply, make

from analysis import head_measures, heads
from analysis.heads import Ablation, Heads
from errors import ConfigError

TASK = Pairs()
STACKED, RECURRENT = "transformer-scan-remat", "lstm-attention-luong"


def mean_loss(ablation: Ablation, masks: np.ndarray, batch: dict) -> np.ndarray:
    return ablation(masks, batch).sum(1) / batch["weights"].sum()


@pytest.fixture(scope="module")
def measured():
    model, variables, found = planted()
    return head_measures.measure(TASK, model, variables, found, [copies()])


def test_the_planted_head_alone_carries_the_copy():
    model, variables, found = planted()
    ablation, x = Ablation(TASK, model, variables, found), found.names.index(PLANTED)
    ones = np.ones((1, len(found)), np.float32)
    masks = np.concatenate([ones, found.without_each(), found.only_each()])
    losses = mean_loss(ablation, masks, copies())
    assert losses[0] < 0.1
    change, only = np.split(losses[1:] - losses[0], 2)
    assert change[x] > 1
    assert np.abs(np.delete(change, x)).max() < 0.05
    other = found.names.index(PLANTED._replace(head=0))
    assert only[other] > 1
    assert np.abs(np.delete(only, other)).max() < 0.05


def test_both_importances_find_the_planted_head(measured):
    found = planted()[2]
    for values in (measured.importance_token, measured.importance_example):
        assert found.names[values.argmax()] == PLANTED
        assert np.sort(values)[-2] < 0.1 * values.max()
    x = found.names.index(PLANTED)
    assert measured.confidence[x] > 0.95
    assert measured.entropy[x] < 0.2
    others = np.delete(measured.entropy, x)
    assert others.min() > 0.5  # next to no weights: they look at everything


def test_importance_is_that_of_michel_s_code(measured):
    """|out . dL/dout| at each place, with the gradient of what stands in a head's place."""
    model, variables, found = planted()
    batch = copies()
    seen = apply(model, variables, *TASK.inputs(batch), mutable="heads")[1]["heads"]
    outputs = {path[:-1]: out for path, out in flatten_dict(seen).items()}
    ones = {path: jnp.ones(out.shape[-2]) for path, out in outputs.items()}

    def loss(out, path):  # one module's output comes from outside, the others follow
        masked = heads.ablated(variables, ones | {path: 0 * ones[path]}, {path: out})
        return TASK.token_losses(model, masked, batch)[0].sum()

    grads = jax.jit(lambda: {path: jax.grad(loss)(out, path) for path, out in outputs.items()})()
    dots = {p: np.asarray(out * grads[p], np.float64).sum(-1) for p, out in outputs.items()}
    by_token = found.in_order({p: np.abs(dot).sum((0, 1)) for p, dot in dots.items()})
    by_example = found.in_order({p: np.abs(dot.sum(1)).sum(0) for p, dot in dots.items()})
    num_tokens, num_examples = batch["weights"].sum(), 5
    np.testing.assert_allclose(measured.importance_token, by_token / num_tokens, rtol=1e-4)
    np.testing.assert_allclose(measured.importance_example, by_example / num_examples, rtol=1e-4)


def test_importance_divided_by_the_norm_of_its_layer():
    found = planted()[2]
    values = np.arange(1.0, 7.0)
    expected = [1 / 5**0.5, 2 / 5**0.5, 0.6, 0.8, 5 / 61**0.5, 6 / 61**0.5]
    np.testing.assert_allclose(head_measures.normalised(found, values), expected)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(STACKED, "zero"), (STACKED, "resample"), (RECURRENT, "mean"), (RECURRENT, "resample")],
)
def test_all_heads_at_once_are_one_at_a_time(name, kind):
    """In chunks as well, and in Transformers under a scan and recurrent decoders alike."""
    model, variables = make(SEQ2SEQ[name])
    found, batch = Heads(model, variables), copies()
    means = {
        path: np.random.default_rng(0).normal(size=(*shape.shape[:-4], *shape.shape[-2:]))
        for path, shape in heads.recorded_outputs(model, variables, TASK.inputs(batch)).items()
    }
    options = (TASK, model, variables, found, kind, means)
    masks = np.concatenate([np.ones((1, len(found)), np.float32), found.without_each()])
    together = Ablation(*options)(masks, batch)
    one = Ablation(*options, num_bytes=0)
    assert one._program(masks, batch)[0] == 1
    np.testing.assert_allclose(together, one(masks, batch), rtol=0, atol=1e-6 * 6)
    plain = jax.jit(TASK.token_losses, static_argnums=0)(model, variables, batch)[0].sum(1)
    np.testing.assert_allclose(together[0], plain, atol=1e-5)
    assert np.abs(together[1:] - together[0]).max(1).min() > 1e-4


@pytest.mark.parametrize("kind", [None, "mean", "resample"])
def test_a_mask_of_ones_is_the_plain_model_bit_for_bit(kind):
    model, variables = make(SEQ2SEQ[STACKED])
    found, batch = Heads(model, variables), copies()
    expected = apply(model, variables, *TASK.inputs(batch))
    shapes = heads.recorded_outputs(model, variables, TASK.inputs(batch))
    values = {
        None: {},
        "mean": {path: jnp.ones((*x.shape[:-4], *x.shape[-2:])) for path, x in shapes.items()},
        "resample": {path: jnp.ones(x.shape) for path, x in shapes.items()},
    }[kind]
    masked = found.masked(variables, np.ones(len(found)), values)
    assert (apply(model, masked, *TASK.inputs(batch)) == expected).all()


def test_another_example_takes_the_place_as_in_a_loop():
    random, lengths = np.random.default_rng(0), [4, 2, 3, 0]
    out = random.normal(size=(2, 4, 4, 3, 2))  # layers, rows, places, heads, features
    queries = np.arange(4) < np.array(lengths)[:, None]
    found = heads.of_another_row(out, jnp.array([True, True, True, False]), queries)
    for row in range(3):
        other = (row + 1) % 3
        for t in range(4):
            expected = out[:, other, t % lengths[other]]
            np.testing.assert_allclose(found[:, row, t], expected, rtol=1e-6)


def test_an_example_without_another_is_not_resampled():
    """It would be given its own heads again, as if none were removed."""
    model, variables, found = planted()
    batch = {name: array[-2:] for name, array in copies().items()}  # the last row is empty
    mask = np.zeros((1, len(found)), np.float32)
    with pytest.raises(ConfigError, match="a single example: choose kind zero or mean"):
        Ablation(TASK, model, variables, found, "resample")(mask, batch)


def test_means_are_over_words_and_not_over_padding(measured):
    model, variables, _ = planted()
    batch = copies()
    seen = apply(model, variables, *TASK.inputs(batch), mutable="heads")[1]["heads"]
    for path, out in flatten_dict(seen).items():
        words = batch["source" if path[0] == "encoder" else "inputs"] != 0
        expected = np.asarray(out)[words].mean(0)
        np.testing.assert_allclose(measured.means[path[:-1]], expected, atol=1e-6)


def names_of(block: dict) -> list[str]:
    found = Heads(*make(block))
    assert len(found) == len(set(found.names)) == found.without_each().shape[0]
    flat = {(*path, "x"): values for path, values in found.by_path(np.arange(len(found))).items()}
    back = {path[:-1]: values for path, values in flatten_dict(unflatten_dict(flat)).items()}
    assert found.in_order(back).tolist() == list(range(len(found)))
    return [f"{layer.part} {layer.number}: {layer.num_heads}" for layer in found.layers]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (SEQ2SEQ["transformer"], ["encoder 0: 2", "decoder 0: 2", "decoder 1: 2"]),
        (SEQ2SEQ[STACKED], ["encoder 0: 2", "encoder 1: 2", "decoder 0: 2"]),
        (SEQ2SEQ[RECURRENT], ["alignment 0: 2"]),
        (SEQ2SEQ["lstm-attention"], ["alignment 0: 1"]),
        (SEQ2SEQ["convolutional-attention"], ["alignment 0: 1", "alignment 1: 1"]),
        (SEQ2SEQ["memory-attention"], ["alignment 0: 1", "alignment 1: 1"]),
        (LANGUAGE_MODELS["transformer"], ["decoder 0: 2", "decoder 1: 2"]),
    ],
)
def test_heads_have_names_in_every_kind_of_model(block, expected):
    assert names_of(block)[:3] == expected


def test_a_head_reads_as_a_sentence():
    assert str(PLANTED) == "cross, layer 0, head 1"


@pytest.mark.parametrize("block", [SEQ2SEQ["lstm"], LANGUAGE_MODELS["lstm"]])
def test_a_model_without_attention_is_refused(block):
    with pytest.raises(ConfigError, match="has no attention"):
        Heads(*make(block))
