"""Prompts in one pass: as many steps, for every causal language model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import LANGUAGE_MODELS, VOCAB, make, tokens

LENGTHS, FIRST = np.array([[5, 2, 3, 4], [2, 1, 1, 3]], np.int32)
SLOTS = 8


@functools.partial(jax.jit, static_argnums=0)
def by_steps(model, variables, tokens_BT, lengths_B):
    """(carry, logits) of rows that stop at their lengths, by selecting old or new at each step."""

    def step(kept, at):
        t, token_B = at
        new = model.apply(variables, kept[0], token_B, method="step")

        def chosen(new, old):
            return jnp.where((t < lengths_B).reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(chosen, new, kept), None

    batch_size, length = tokens_BT.shape
    start = model.init_carry(batch_size, SLOTS), jnp.zeros((batch_size, VOCAB))
    return jax.lax.scan(step, start, (jnp.arange(length), tokens_BT.T))[0]


@functools.partial(jax.jit, static_argnums=0)
def at_once(model, variables, tokens_BT, lengths_B, carry=None):
    carry = model.init_carry(len(tokens_BT), SLOTS) if carry is None else carry
    return model.apply(variables, carry, tokens_BT, lengths_B, method="prefill")


# Others read a prompt otherwise than its steps: tests/test_prefix.py.
CAUSAL = [name for name, block in LANGUAGE_MODELS.items() if "bidirectional_prefix" not in block]


@pytest.mark.parametrize("name", CAUSAL)
def test_a_prompt_in_one_pass_equals_its_steps(name):
    """Carry and logits, of ragged rows whose padding holds NaN, from an empty carry and on."""
    model, variables = make(LANGUAGE_MODELS[name], tie_embeddings=False)
    tokens_BT = tokens(len(LENGTHS), LENGTHS.max())
    expected = by_steps(model, variables, tokens_BT, LENGTHS)
    variables["params"]["embed"]["embedding"][0] = np.nan
    assert_equal(at_once(model, variables, cut(tokens_BT, LENGTHS), LENGTHS), expected)

    carry, _ = at_once(model, variables, cut(tokens_BT, FIRST), FIRST)
    rest_BT = np.stack([np.roll(row, -first) for row, first in zip(tokens_BT, FIRST, strict=True)])
    rest_BT = cut(rest_BT, LENGTHS - FIRST)
    assert_equal(at_once(model, variables, rest_BT, LENGTHS - FIRST, carry), expected)


def cut(tokens_BT, lengths_B):
    """Zeros beyond the lengths."""
    return np.where(np.arange(tokens_BT.shape[1]) < lengths_B[:, None], tokens_BT, 0)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
