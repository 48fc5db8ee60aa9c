"""Schemes of positions against the formulas of their papers, one number at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.positions import (
    PositionOptions,
    Positions,
    alibi_slopes,
    relative_buckets,
    rotary_angles,
    rotate,
    sinusoidal_positions,
)

D, H, K = 16, 4, 6


def scheme(name: str, causal: bool = True, **options) -> tuple:
    """(module, variables) with random parameters."""
    module = Positions(PositionOptions(name, 8, 8, 12), D, H, K, causal, **options)
    place = jnp.zeros((1, 2), jnp.int32)

    def touch(module):
        return module.embed(jnp.zeros((1, 2, D)), None, 2), module.terms(place, place)

    variables = module.init(jax.random.key(0), method=touch)
    return module, jax.tree.map(np.asarray, dict(variables))


def table_of(variables) -> np.ndarray:
    return variables["params"]["table"].unbox()


@pytest.mark.parametrize("halves", [False, True])
def test_sinusoids_are_those_of_the_paper(halves):
    module, variables = scheme("sinusoidal_halves" if halves else "sinusoidal")
    table = module.apply(variables, jnp.zeros((50, D)), None, 50, method="embed")
    for position, i in ((0, 0), (37, 3), (49, 7)):
        angle = position / 10000 ** (2 * i / D)
        sine, cosine = (i, D // 2 + i) if halves else (2 * i, 2 * i + 1)
        assert table[position, sine] == pytest.approx(np.sin(angle), abs=1e-6)
        assert table[position, cosine] == pytest.approx(np.cos(angle), abs=1e-6)


@pytest.mark.parametrize("name", ["sinusoidal", "sinusoidal_halves", "learned"])
def test_a_place_is_a_row_of_the_table(name):
    module, variables = scheme(name)
    x_BTD = jax.random.normal(jax.random.key(1), (2, 5, D))
    whole = module.apply(variables, x_BTD, None, 5, method="embed")
    place_BT = jnp.array([[0, 1, 0, 1, 2], [4, 3, 2, 1, 0]])
    placed = module.apply(variables, x_BTD, place_BT, 5, method="embed")
    added = whole[0] - x_BTD[0]
    np.testing.assert_allclose(placed - x_BTD, added[place_BT], atol=1e-6)
    if name == "learned":
        np.testing.assert_allclose(added, table_of(variables)[:5], atol=1e-6)


@pytest.mark.parametrize("name", ["relative", "rotary", "alibi", "none"])
def test_the_others_leave_embeddings_alone(name):
    module, variables = scheme(name)
    x_BTD = jnp.ones((2, 5, D))
    assert (module.apply(variables, x_BTD, None, 5, method="embed") == x_BTD).all()
    assert ("params" in variables) == (name == "relative")


def test_rotary_is_a_product_with_a_complex_number_and_knows_distances_only():
    """RoFormer, eq. 12: <f(q, m), f(k, n)> = Re[q k* e^(i (m - n) theta)]."""
    random = np.random.default_rng(0)
    q_K, k_K = random.normal(size=(2, K))
    theta = 10000.0 ** (-2 * np.arange(K // 2) / K)

    def turned(x_K, place):
        angles = rotary_angles(jnp.full((1, 1), place), K)
        return np.asarray(rotate(jnp.asarray(x_K, jnp.float32)[None, None, None], angles))[0, 0, 0]

    def complex_of(x_K):
        return x_K[0::2] + 1j * x_K[1::2]

    for m, n in ((0, 0), (3, 1), (7, 2), (2, 7)):
        by_hand = complex_of(q_K) * np.exp(1j * m * theta)
        np.testing.assert_allclose(complex_of(turned(q_K, m)), by_hand, atol=1e-5)
        product = turned(q_K, m) @ turned(k_K, n)
        expected = (complex_of(q_K) * complex_of(k_K).conj() * np.exp(1j * (m - n) * theta)).sum()
        assert product == pytest.approx(expected.real, abs=1e-5)
        assert product == pytest.approx(turned(q_K, m + 50) @ turned(k_K, n + 50), abs=1e-4)
    lengths = np.linalg.norm(turned(q_K, 9)), np.linalg.norm(q_K)
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-6)


def test_alibi_slopes_are_those_of_the_paper():
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(16), [2.0 ** (-i / 2) for i in range(1, 17)], rtol=1e-6)
    twelve = [2.0**-i for i in range(1, 9)] + [2.0 ** (-(2 * i + 1) / 2) for i in range(4)]
    np.testing.assert_allclose(alibi_slopes(12), twelve, rtol=1e-6)
    assert alibi_slopes(1) == [2.0**-8]
    module, variables = scheme("alibi")
    query_BT, key_BS = jnp.array([[5, 6]]), jnp.array([[0, 1, 2, 3, 4, 5, 6]])
    bias_BHTS = module.apply(variables, query_BT, key_BS, method="terms").bias_BHTS
    for h in range(H):
        for t, s in ((0, 0), (0, 5), (1, 2)):
            distance = query_BT[0, t] - key_BS[0, s]
            assert bias_BHTS[0, h, t, s] == pytest.approx(-(4.0 ** -(h + 1)) * distance)


def bucket_by_hand(distance: int, causal: bool, num_buckets: int, furthest: int) -> int:
    """Raffel et al. 2020: "half for exact increments", the rest logarithmic up to the furthest."""
    if not causal:
        half = num_buckets // 2
        return (half if distance > 0 else 0) + bucket_by_hand(-abs(distance), True, half, furthest)
    behind, exact = max(-distance, 0), num_buckets // 2
    if behind < exact:
        return behind
    places = math.log(behind / exact) / math.log(furthest / exact) * (num_buckets - exact)
    return min(exact + int(places + 1e-9), num_buckets - 1)


BUCKETS = [(True, 32, 128), (False, 32, 128), (True, 8, 6), (False, 8, 6), (False, 64, 100)]


@pytest.mark.parametrize(("causal", "num", "furthest"), BUCKETS)
def test_buckets_by_hand(causal, num, furthest):
    distance = np.arange(-300, 301)
    found = relative_buckets(distance, causal, num, furthest)
    expected = [bucket_by_hand(int(d), causal, num, furthest) for d in distance]
    assert found.tolist() == expected
    assert found.max() == num - 1
    assert (found[distance >= 0] == 0).all() == causal


@pytest.mark.interop
@pytest.mark.parametrize(("causal", "num", "furthest"), BUCKETS)
def test_buckets_are_those_of_transformers(causal, num, furthest):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(
        torch.from_numpy(distance), not causal, num, furthest
    )
    assert relative_buckets(distance, causal, num, furthest).tolist() == theirs.tolist()


@pytest.mark.parametrize("causal", [False, True])
def test_relative_bias_is_the_entry_of_its_bucket(causal):
    module, variables = scheme("relative", causal)
    query_BT = jnp.array([[0, 3, 40], [7, 1, 2]])
    key_BS = jnp.array([[0, 1, 2, 3], [30, 2, 1, 0]])
    bias_BHTS = module.apply(variables, query_BT, key_BS, method="terms").bias_BHTS
    assert bias_BHTS.shape == (2, H, 3, 4)
    for b, t, s in np.ndindex(2, 3, 4):
        bucket = bucket_by_hand(int(key_BS[b, s] - query_BT[b, t]), causal, 8, 12)
        np.testing.assert_allclose(bias_BHTS[b, :, t, s], table_of(variables)[bucket], atol=1e-6)


@pytest.mark.interop
def test_marian_positions_are_those_of_transformers():
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    theirs = MarianSinusoidalPositionalEmbedding(50, D)
    theirs.weight.data = theirs.create_weight()
    module, variables = scheme("sinusoidal_halves")
    ours = module.apply(variables, jnp.zeros((50, D)), None, 50, method="embed")
    np.testing.assert_allclose(ours, theirs.weight.detach().numpy(), atol=1e-6)
    assert np.abs(ours - sinusoidal_positions(50, D)).max() > 0.5
