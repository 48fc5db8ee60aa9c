"""What every encoder promises: masks, packing, both heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import ENCODERS
from model_cases import VOCAB, apply, make, tokens

import models

LENGTH = 6

all_encoders = pytest.mark.parametrize("name", ENCODERS)


def types_of(tokens_BT: np.ndarray, model) -> np.ndarray:
    return (np.arange(tokens_BT.shape[1]) >= 3).astype(np.int32)[None] % model.num_types + (
        np.zeros_like(tokens_BT)
    )


@all_encoders
def test_outputs_and_heads(name):
    model, variables = make(ENCODERS[name])
    tokens_BT = tokens(3, LENGTH)
    found = apply(model, variables, tokens_BT)
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {
        "features": (3, LENGTH, 16),
        "pooled": (3, 16),
        "logits": (3, LENGTH, VOCAB),
        "pair_logits": (3, 2),
    }
    params = variables["params"]

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    pooled_BD = np.tanh(dense("pooler", found["features"][:, 0]))
    np.testing.assert_allclose(found["pooled"], pooled_BD, atol=1e-5)
    np.testing.assert_allclose(found["pair_logits"], dense("pair", pooled_BD), atol=1e-5)
    x_BTD = model.apply(variables, found["features"], method="token_features")
    kernel_VD = params["embed"]["embedding"] if model.tie_embeddings else params["output"]["kernel"]
    bias_V = params.get("logits_bias", 0)
    np.testing.assert_allclose(found["logits"], x_BTD @ kernel_VD.T + bias_V, atol=1e-4)


@all_encoders
def test_packed_documents_equal_lone_ones_even_beside_nan(name):
    model, variables = make(ENCODERS[name], tie_embeddings=False)
    lone_2T = tokens(2, 4)
    types_2T = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.int32) % model.num_types
    packed_1T = np.concatenate([lone_2T[0], lone_2T[1, :3], [0, 0]])[None].astype(np.int32)
    packed_types_1T = np.concatenate([types_2T[0], types_2T[1, :3], [0, 0]])[None]
    segments_1T = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]], np.int32)
    first = apply(model, variables, lone_2T[:1], None, types_2T[:1])
    second = apply(model, variables, lone_2T[1:, :3], None, types_2T[1:, :3])
    variables["params"]["embed"]["embedding"][0] = np.nan
    found = apply(model, variables, packed_1T, segments_1T, packed_types_1T)
    for value in ("features", "logits"):
        np.testing.assert_allclose(found[value][0, :4], first[value][0], atol=2e-5)
        np.testing.assert_allclose(found[value][0, 4:7], second[value][0], atol=2e-5)
    assert np.isfinite(found["pooled"]).all()


@all_encoders
def test_every_word_of_a_document_has_influence_and_no_other_has(name):
    """Exact zeros across documents and from padding; both directions within one."""
    model, variables = make(ENCODERS[name], tie_embeddings=False)
    inputs_1T = np.arange(4, 11, dtype=np.int32)[None]  # each word once
    segments_1T = np.array([[1, 1, 1, 2, 2, 2, 0]], np.int32)

    def logits_TV(table):
        params = {**variables["params"], "embed": {"embedding": table}}
        return model.apply({"params": params}, inputs_1T, segments_1T)["logits"][0, :6].sum(-1)

    table = variables["params"]["embed"]["embedding"]
    jacobian_TVE = np.asarray(jax.jit(jax.jacrev(logits_TV))(table))
    influence_TT = np.abs(jacobian_TVE[:, inputs_1T[0]]).max(-1)
    same_TT = segments_1T[0, :6, None] == segments_1T
    assert (influence_TT[~same_TT] == 0).all()
    assert (influence_TT[same_TT] > 0).all()


@all_encoders
def test_order_types_and_rows(name):
    model, variables = make(ENCODERS[name])
    tokens_BT = tokens(3, LENGTH)
    types_BT = types_of(tokens_BT, model)
    found = apply(model, variables, tokens_BT, None, types_BT)
    permuted = apply(model, variables, tokens_BT[[2, 0, 1]], None, types_BT)
    np.testing.assert_allclose(
        permuted["features"], found["features"][np.array([2, 0, 1])], atol=1e-5
    )
    turned = apply(model, variables, tokens_BT[:, ::-1], None, types_BT[:, ::-1])
    asymmetric = model.positions != "alibi"  # which knows distances only
    differs = np.abs(turned["features"][:, ::-1] - found["features"]).max() > 1e-3
    assert differs == asymmetric
    if model.num_types > 1:
        plain = apply(model, variables, tokens_BT)
        assert np.abs(plain["features"] - found["features"]).max() > 1e-3


@all_encoders
def test_head_masks_and_bfloat16(name):
    model, variables = make(ENCODERS[name])
    tokens_BT = tokens(3, LENGTH)
    expected = apply(model, variables, tokens_BT)["logits"]
    recorded, sown = apply(model, variables, tokens_BT, mutable=("intermediates", "heads"))
    np.testing.assert_allclose(recorded["logits"], expected, atol=1e-5)
    weights = [w for p, w in jax.tree.leaves_with_path(sown) if "weights" in str(p)]
    assert weights
    assert all(w.shape[-3] == model.num_heads for w in weights)
    found = apply(model.clone(dtype="bfloat16"), variables, tokens_BT)["logits"]
    assert found.dtype == jnp.float32
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).max()


def test_presence_of_parameters():
    model, _ = make(ENCODERS["bert"])
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    assert set(params) == {
        *("embed", "types", "encoder", "transform", "transform_norm", "pooler", "pair"),
        "logits_bias",
    }
    assert set(params["encoder"]) == {"positions", "embedding_norm", "layers_0", "layers_1"}
