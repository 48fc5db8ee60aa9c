"""Attention by blocks of queries: the numbers of attention at once, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import memory_options
from benchmarks.workloads import Workload, transformer_lm
from models.attention import blockwise_attention, dot_product_attention
from models.masks import cross_mask, self_mask, step_mask, whole_mask

B, T, H, K = 2, 11, 4, 3
SEGMENTS = jnp.array([[1] * 4 + [2] * 7, [1] * 8 + [0] * 3])
PAST = jnp.tril(jnp.ones((T, T), bool), -1)[None].repeat(B, 0)  # the first query sees nothing
MASKS = {
    "packed": self_mask(SEGMENTS, causal=True),
    "packed, with prefixes": self_mask(SEGMENTS, True, jnp.arange(T)[None] % 4 < 3),
    "both ways": self_mask(SEGMENTS, causal=False),
    "one segment": whole_mask(SEGMENTS, causal=True),
    "across": cross_mask(SEGMENTS, T),
    "slots of a cache": step_mask(PAST),
}


def inputs(seed: int = 0):
    random = np.random.default_rng(seed)
    shapes = ((B, T, H, K), (B, T, 2, K), (B, T, 2, K), (1, H, 1, T))
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def values_and_gradients(attend, mask, q, k, v, bias, **options):
    def loss(q, k, v, bias):
        out, _ = attend(q, k, v, mask, None, bias, **options)
        return (jnp.sin(out) * jnp.arange(out.size).reshape(out.shape)).sum(), out

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, bias)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("block", [1, 4, 5, 10])
def test_blocks_have_the_values_and_gradients_of_all_at_once(name, block):
    arguments = MASKS[name], *inputs()
    found = values_and_gradients(blockwise_attention, *arguments, block=block)
    expected = values_and_gradients(dot_product_attention, *arguments)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_a_query_may_not_see_reaches_it_in_no_block():
    q, k, v, _ = inputs()
    mask = MASKS["packed"]
    hidden_BS = SEGMENTS == 0
    bad_BSGK = jnp.where(hidden_BS[:, :, None, None], jnp.nan, k)
    out, weights = blockwise_attention(q, k, v, mask, block=4)
    assert weights is None
    with_bad, _ = blockwise_attention(q, bad_BSGK, v, mask, block=4)
    np.testing.assert_array_equal(out[~hidden_BS], with_bad[~hidden_BS])
    assert (np.asarray(out)[hidden_BS] == 0).all()
    jacobian = jax.jacobian(lambda v: blockwise_attention(q, k, v, mask, block=4)[0])(v)
    seen_BTS = np.abs(np.asarray(jacobian)).sum((2, 3, 6, 7)) > 0  # (B, T, B, S)
    for row in range(B):
        np.testing.assert_array_equal(seen_BTS[row, :, row], np.asarray(mask.dense())[row, 0])
        assert not seen_BTS[row, :, 1 - row].any()


def test_a_layer_without_heads_has_blocks_of_nothing():
    none = jnp.zeros((B, T, 0, K))
    out, _ = blockwise_attention(none, none, none, MASKS["packed"], block=4)
    assert out.shape == none.shape


def test_memory_does_not_grow_with_the_square_of_the_length():
    """Four times the length, a quarter of the rows: as many tokens."""

    def sizes(attention: str) -> list[int]:
        block = {**transformer_lm(16, 4, 1), "attention": attention, "dropout_rate": 0.0}
        shapes = ((8, 256), (2, 1024))
        cases = [Workload("", block, 50, rows, 0, length) for rows, length in shapes]
        return [memory_options.temporary_bytes(case) for case in cases]

    short, long = sizes("blockwise")
    whole_short, whole_long = sizes("dot_product")
    print(f"blockwise {short} to {long} bytes, at once {whole_short} to {whole_long}")
    assert long < 1.3 * short
    assert whole_long > 2.5 * whole_short
