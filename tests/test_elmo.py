"""ELMo: projected LSTMs, characters, what each direction sees, and the mixture of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta
from model_cases import VOCAB, apply, make, tokens

import data
import models
from data.spelling import BEGIN_WORD, END_WORD
from errors import ConfigError
from models.recurrent.cells import CELLS
from models.recurrent.characters import CharacterEmbed
from models.recurrent.elmo import CELL, ScalarMix
from models.recurrent.layer import RecurrentLayer
from tasks.bidirectional import BidirectionalLanguageModelling
from training import parallel

BLOCK = {"name": "elmo", "embedding_size": 5, "hidden_size": 7, "tie_embeddings": False}
LETTERS = {**BLOCK, "embedding": "characters", "filters": ((1, 3), (2, 4)), "character_size": 4}


def randomly(shapes, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: random.normal(scale=0.4, size=x.shape).astype(x.dtype), shapes)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_projected_lstm_equals_a_loop_over_its_equations():
    assert CELLS[CELL.cell].__name__ == "ProjectedLSTMCell"
    layer = RecurrentLayer(7, CELL, projection_size=5)
    x_TBD = randomly(jnp.zeros((4, 2, 3)))
    params = randomly(meta.unbox(layer.init(jax.random.key(0), x_TBD)), 1)["params"]["unit"]
    assert params["recurrent"].shape == (5, 28)
    assert params["projection"].shape == (7, 5)
    (c, h), found = layer.apply({"params": {"unit": params}}, x_TBD)
    cell, out = np.zeros((2, 7)), np.zeros((2, 5))
    for t in range(4):
        gates = x_TBD[t] @ params["input"]["kernel"] + params["input"]["bias"]
        i, f, g, o = np.split(gates + out @ params["recurrent"], 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        out = (sigmoid(o) * np.tanh(cell)) @ params["projection"]
        np.testing.assert_allclose(found[t], out, atol=1e-5)
    np.testing.assert_allclose(c, cell, atol=1e-5)
    np.testing.assert_allclose(h, out, atol=1e-5)


def test_gradients_of_the_projection_equal_those_of_a_plain_scan():
    layer = RecurrentLayer(3, CELL, projection_size=2)
    x_TBD = randomly(jnp.zeros((5, 2, 2)))
    params = randomly(meta.unbox(layer.init(jax.random.key(0), x_TBD)), 1)

    def plain(params):
        unit = params["params"]["unit"]

        def step(carry, x_BD):
            gates = x_BD @ unit["input"]["kernel"] + unit["input"]["bias"]
            i, f, g, o = jnp.split(gates + carry[1] @ unit["recurrent"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * carry[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = (jax.nn.sigmoid(o) * jnp.tanh(c)) @ unit["projection"]
            return (c, h), h

        return jax.lax.scan(step, (jnp.zeros((2, 3)), jnp.zeros((2, 2))), x_TBD)[1]

    found = jax.jit(jax.grad(lambda p: jnp.sin(layer.apply(p, x_TBD)[1]).sum()))(params)
    expected = jax.jit(jax.grad(lambda p: jnp.sin(plain(p)).sum()))(params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_vectors_of_words_equal_a_loop_over_their_characters():
    layer = CharacterEmbed(3, ((1, 2), (3, 4)), character_size=4, num_highway=1)
    characters = np.array([[[257, 5, 6, 7, 258], [257, 9, 258, 0, 0], [0, 0, 0, 0, 0]]], np.int32)
    params = randomly(meta.unbox(layer.init(jax.random.key(0), characters)))["params"]
    found = layer.apply({"params": params}, characters)[0]
    for word, vector in zip(characters[0], found, strict=True):
        table = params["characters"]["embedding"] * 2.0  # sqrt(4)
        letters = [table[c] for c in word if c]
        padded = np.array([*letters, *np.zeros((7, 4))])
        y = []
        for width in (1, 3):
            p = params[f"width_{width}"]
            each = [
                padded[i : i + width].ravel() @ p["kernel"] + p["bias"] for i in range(len(letters))
            ]
            y.extend(np.maximum(0, each).max(0) if each else np.zeros(p["bias"].size))
        y, highway = np.array(y), params["highway_0"]
        new = np.maximum(0, y @ highway["transform"]["kernel"] + highway["transform"]["bias"])
        gate = sigmoid(y @ highway["gate"]["kernel"] + highway["gate"]["bias"])
        y = gate * new + (1 - gate) * y
        expected = y @ params["projection"]["kernel"] + params["projection"]["bias"]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_forward_layers_see_the_past_and_backward_layers_the_future():
    """Exact zeros of d layer[t] / d embedding of the word at another place."""
    model, variables = make(BLOCK)
    tokens_1T = np.arange(4, 10, dtype=np.int32)[None]

    def layers_of(table):
        params = {**variables["params"], "embed": {"embedding": table}}
        found = model.apply({"params": params}, tokens_1T, method="layers")
        return jnp.stack(found)[:, 0].reshape(3, 6, 2, 5).sum(-1)  # (N, T, direction)

    table = variables["params"]["embed"]["embedding"]
    jacobian = np.asarray(jax.jit(jax.jacrev(layers_of))(table))[..., tokens_1T[0], :]
    seen = np.abs(jacobian).max(-1)  # (N, T, direction, word)
    at, word = np.indices((6, 6))
    assert ((seen[0] > 0) == (at == word)[:, None]).all()
    for layer in (1, 2):
        assert ((seen[layer, :, 0] > 0) == (word <= at)).all()
        assert ((seen[layer, :, 1] > 0) == (word >= at)).all()


def test_no_logit_depends_on_its_own_target():
    """Forward logits t see inputs up to t; backward logits t see targets from t on."""
    model, variables = make(BLOCK)
    words = np.arange(4, 9, dtype=np.int32)
    inputs_1T, targets_1T = words[None, :-1], words[None, 1:]

    def logits_of(table):
        params = {**variables["params"], "embed": {"embedding": table}}
        return model.apply({"params": params}, inputs_1T, targets_1T)[0].sum(-1)

    table = variables["params"]["embed"]["embedding"]
    seen = np.abs(np.asarray(jax.jit(jax.jacrev(logits_of))(table))[:, words]).max(-1) > 0
    at, word = np.indices((4, 5))
    assert (seen[:4] == (word <= at)).all()
    assert (seen[4:] == (word > at)).all()


def spelled(block: dict, ids: np.ndarray) -> np.ndarray:
    """The ids, or three letters for each."""
    return np.stack([ids, ids + 1, ids % 3], axis=-1) if "embedding" in block else ids


@pytest.mark.parametrize("block", [BLOCK, LETTERS], ids=["table", "characters"])
def test_packed_documents_equal_lone_ones_even_beside_nan(block):
    model, variables = make(block)
    lone_2T = tokens(2, 4)  # of the second the first three
    packed_1T = np.concatenate([lone_2T[0], lone_2T[1, :3], [0, 0]])[None].astype(np.int32)
    segments_1T = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]], np.int32)
    first = apply(model, variables, spelled(block, lone_2T), method="layers")
    second = apply(model, variables, spelled(block, lone_2T[1:, :3]), method="layers")
    if block is BLOCK:
        table = variables["params"]["embed"]["embedding"].copy()
        table[0] = np.nan
        variables["params"]["embed"]["embedding"] = table
    found = apply(model, variables, spelled(block, packed_1T), segments_1T, method="layers")
    assert len(found) == 3
    for layer, one, other in zip(found, first, second, strict=True):
        assert layer.shape == (1, 9, 10)
        np.testing.assert_allclose(layer[0, :4], one[0], atol=1e-5)
        np.testing.assert_allclose(layer[0, 4:7], other[0], atol=1e-5)


def test_the_mixture_is_its_formula_and_begins_as_the_mean():
    layers = [randomly(jnp.zeros((2, 3)), seed) for seed in range(3)]
    mix = ScalarMix(3)
    fresh = meta.unbox(mix.init(jax.random.key(0), layers))
    np.testing.assert_allclose(mix.apply(fresh, layers), np.mean(layers, axis=0), atol=1e-6)
    w = np.array([0.3, -1.0, 2.0])
    params = {"weights": jnp.asarray(w), "gamma": jnp.asarray(1.5)}
    share = np.exp(w) / np.exp(w).sum()
    expected = 1.5 * sum(s * layer for s, layer in zip(share, layers, strict=True))
    np.testing.assert_allclose(mix.apply({"params": params}, layers), expected, atol=1e-5)


def toy(folder, **options):
    source = {"name": "toy_language", "num_train": 40, "num_validation": 4, "num_test": 4}
    block = {"source": source, "tokenizer": {"name": "words"}, "sequence_length": 24}
    block |= {"sequences_per_batch": 3, **options}
    return BidirectionalLanguageModelling(0, str(folder), **block)


def test_the_loss_is_that_of_both_directions(tmp_path):
    task = toy(tmp_path)
    model = models.build(BLOCK, task.vocab_size)
    variables = randomly(models.init(model, jax.random.key(0)))
    batch = task.batch("train", 3)
    sums = jax.jit(lambda v, b: task.loss(model, v, b, jax.random.key(0), False))(variables, batch)
    logits = jax.jit(model.apply)(variables, *task.inputs(batch))
    log_p = np.asarray(jax.nn.log_softmax(logits))
    forward, backward = np.split(log_p, 2, axis=1)
    expected = []
    for half, name in ((forward, "targets"), (backward, "inputs")):
        right = np.take_along_axis(half, batch[name][..., None], axis=-1)[..., 0]
        expected.append(-(right * batch["weights"]).sum())
    total = batch["weights"].sum()
    assert sums["loss"] == pytest.approx((sum(expected), total), rel=1e-5)
    assert sums["nll"] == pytest.approx((sum(expected), 2 * total), rel=1e-5)
    assert sums["forward_nll"] == pytest.approx((expected[0], total), rel=1e-5)
    assert sums["backward_nll"] == pytest.approx((expected[1], total), rel=1e-5)
    each = jax.jit(lambda v, b: task.token_losses(model, v, b)[0])(variables, batch)
    assert float(each.sum()) == pytest.approx(sum(expected), rel=1e-5)


def test_words_are_spelled_between_marks_and_beside_their_ids(tmp_path):
    task = toy(tmp_path, max_characters=6)
    batch = task.batch("train", 0)
    table, pieces = data.spellings(task.tokenizer, 6), task.tokenizer.pieces()
    np.testing.assert_array_equal(batch["inputs_spelled"], table[batch["inputs"]])
    assert (table[data.PAD] == 0).all()
    assert len(set(map(tuple, table[:4]))) == 4
    for i, piece in enumerate(pieces, 4):
        content = [b + 1 for b in piece.encode()][:4]
        row = [BEGIN_WORD, *content, END_WORD]
        assert table[i].tolist() == row + [0] * (6 - len(row))
    model = models.build(LETTERS, task.vocab_size)
    variables = models.init(model, jax.random.key(0))
    loss = jax.jit(lambda v, b: task.loss(model, v, b, jax.random.key(0), True)["loss"][0])
    assert np.isfinite(loss(variables, batch))


@pytest.mark.parametrize("width", [1, 3])
def test_words_of_too_few_characters_are_refused(tmp_path, width):
    with pytest.raises(ConfigError, match=rf"must be 0 or at least 4, got {width}"):
        toy(tmp_path, max_characters=width)


def test_characters_are_no_output_layer():
    with pytest.raises(ConfigError, match="needs embedding='table'"):
        models.build({**LETTERS, "tie_embeddings": True}, VOCAB)


def test_letters_are_spread_over_a_mesh():
    model = models.build(LETTERS, VOCAB)
    key = jax.random.key(0)
    strategy = parallel.MeshStrategy(jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor")), 1)
    assert jax.tree.leaves(strategy.abstract(lambda: models.init_boxed(model, key)))
