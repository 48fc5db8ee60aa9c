"""Grouped-query and multi-query attention, biases and scales against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import FAMILY_LANGUAGE_MODELS, TRANSFORMER
from model_cases import VOCAB, apply, make, tokens

import models
from analysis.pruning import remove_heads
from errors import ConfigError
from models.attention import MECHANISMS, mechanism
from models.masks import self_mask

B, T, H, K = 2, 5, 4, 3
SEGMENTS = jnp.array([[1, 1, 1, 2, 2], [1, 1, 1, 1, 0]])


def by_loop(q, k, v, mask_BTS, scale, bias):
    out, weights = np.zeros_like(q), np.zeros((B, H, T, T))
    each = H // k.shape[2]
    for b, h, t in np.ndindex(B, H, T):
        seen = np.flatnonzero(mask_BTS[b, t])
        if len(seen):
            scores = [scale * q[b, t, h] @ k[b, s, h // each] + bias[b, h, t, s] for s in seen]
            weights[b, h, t, seen] = np.exp(scores) / np.exp(scores).sum()
            out[b, t, h] = weights[b, h, t] @ v[b, :, h // each]
    return out, weights


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("block", [2, 5])  # of five queries
def test_groups_bias_and_scale_by_hand(name, num_kv_heads, block):
    random = np.random.default_rng(0)
    q = random.normal(size=(B, T, H, K)).astype(np.float32)
    k, v = random.normal(size=(2, B, T, num_kv_heads, K)).astype(np.float32)
    bias = random.normal(size=(B, H, T, T)).astype(np.float32)
    mask = self_mask(SEGMENTS, causal=True)
    seen = np.asarray(mask.dense())[:, 0]
    for scale, given in ((None, None), (0.3, bias), (1.0, bias[:1])):
        added = np.zeros_like(bias) if given is None else np.broadcast_to(given, bias.shape)
        expected = by_loop(q, k, v, seen, K**-0.5 if scale is None else scale, added)
        out, weights = jax.jit(mechanism(name, block), static_argnums=4)(
            q, k, v, mask, scale, given
        )
        np.testing.assert_allclose(out, expected[0], atol=1e-5)
        if weights is not None:
            np.testing.assert_allclose(weights, expected[1], atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_groups_equal_heads_with_repeated_keys_and_values(num_kv_heads):
    block = {"name": "transformer_lm", "num_layers": 1, **TRANSFORMER, "num_heads": 4}
    grouped, variables = make(block, num_kv_heads=num_kv_heads)
    full = models.build(block, VOCAB)
    attention = variables["params"]["decoder"]["layers_0"]["self_attention"]
    repeats = 4 // num_kv_heads
    same = {
        name: jax.tree.map(lambda x: np.repeat(x, repeats, axis=-2), attention[name])
        for name in ("key", "value")
    }
    repeated = jax.tree.map(lambda x: x, variables)
    repeated["params"]["decoder"]["layers_0"]["self_attention"].update(same)
    inputs_BT = tokens(2, 6)
    expected = apply(full, repeated, inputs_BT)
    np.testing.assert_allclose(apply(grouped, variables, inputs_BT), expected, atol=1e-5)
    for head in range(4):  # each head of the queries can be removed alone
        mask = {"head_mask": jnp.ones(4).at[head].set(0)}
        removed = {"ablation": {"decoder": {"layers_0": {"self_attention": mask}}}}
        expected = apply(full, repeated | removed, inputs_BT)
        found = apply(grouped, variables | removed, inputs_BT)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_cache_has_the_heads_of_keys_and_values_only():
    model, _ = make(FAMILY_LANGUAGE_MODELS["transformer-rotary-grouped"])
    key_BGKS, value_BGSK = model.init_carry(3, 7, 2)["memory"]["caches"][0]
    assert key_BGKS.shape == (3, 2, 6, 14)
    assert value_BGSK.shape == (3, 2, 14, 6)


LM = {"name": "transformer_lm", "num_layers": 1, **TRANSFORMER}
WRONG = [
    ({"num_kv_heads": 3}, "num_kv_heads must divide num_heads (2), got 3"),
    ({"num_kv_heads": 1, "heads_kept": (1,)}, "heads_kept needs heads that are alike"),
    ({"positions": "alibi", "heads_kept": (1,)}, "heads_kept needs heads that are alike"),
    ({"positions": "rotary", "head_dim": 3}, "head_dim must be even with positions='rotary'"),
    ({"positions": "relative", "relative_buckets": 6}, "relative_buckets must be a multiple of 4"),
    ({"positions": "relative", "relative_max_distance": 16}, "and relative_max_distance more"),
    ({"positions": "rotery"}, "Did you mean 'rotary'?"),
    ({"activation": "swish_glu"}, "Did you mean 'swiglu'?"),
    ({"norm": "rmsnorm"}, "Did you mean 'rms_norm'?"),
    ({"norm_epsilon": 0.0}, "norm_epsilon must be a number above 0"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_a_wrong_option_is_one_line(options, sentence):
    with pytest.raises(ConfigError) as caught:
        models.build({**LM, **options}, VOCAB)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_beyond_the_learned_positions_is_refused():
    model, variables = make({**LM, "positions": "learned", "max_positions": 6})
    apply(model, variables, tokens(1, 6))
    segments_BT = np.ones((1, 7), np.int32)
    for arguments in ((tokens(1, 7),), (tokens(1, 7), segments_BT)):
        with pytest.raises(ConfigError, match=r"max_positions \(6\) is less than the 7 tokens"):
            apply(model, variables, *arguments)


@pytest.mark.parametrize("options", [{"num_kv_heads": 1}, {"positions": "alibi"}])
def test_heads_that_are_not_alike_are_not_cut_out(options):
    model, variables = make({**LM, **options})
    with pytest.raises(ConfigError, match="heads are alike"):
        remove_heads(model, variables, np.array([1, 0]))


@pytest.mark.parametrize("name", FAMILY_LANGUAGE_MODELS)
def test_hypotheses_side_by_side_equal_lone_rows(name):
    """Each of a row's hypotheses has its own positions in the cache that they share."""
    model, variables = make(FAMILY_LANGUAGE_MODELS[name])
    rows, beams, length = 2, 3, 5
    inputs_RT = tokens(rows * beams, length)
    carry = model.init_carry(rows, length, beams)
    state = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), carry["state"])

    def step(carry, token_R):
        return model.apply(variables, carry, token_R, method="step")

    run = jax.jit(lambda carry, tokens_TR: jax.lax.scan(step, carry, tokens_TR)[1])
    logits_TRV = run({"state": state, "memory": carry["memory"]}, inputs_RT.T)
    expected = apply(model, variables, inputs_RT)
    np.testing.assert_allclose(logits_TRV.swapaxes(0, 1), expected, atol=1e-5)
