"""Search: the states that follow the hypotheses, early ends, limits and refused options."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_cases import (
    BOS,
    EOS,
    PAD,
    T,
    V,
    log_prob_of,
    log_softmax,
    padded,
    random_models,
    search,
    table_carry,
    table_step,
)
from model_cases import SEQ2SEQ, make, sources

import decoding
import tasks.search
from decoding.scoring import length_penalty_of, top_k
from errors import ConfigError


def history_step(carry, token_R):
    """Keeps its tokens three ways: in the state, and as marks in slots that beams share.

    Step t of beam k writes slot t * K + k of its batch row; the state remembers which slots are
    its own past. The logits are a fixed function of the past, read back from the shared slots.
    """
    state, slots_BS = carry["state"], carry["memory"]["slots"]
    num_rows, batch_size = token_R.shape[0], slots_BS.shape[0]
    num_beams, row_R = num_rows // batch_size, jnp.arange(num_rows)
    t_R = state["t"]
    slot_R = t_R * num_beams + row_R % num_beams
    slots_BS = slots_BS.at[row_R // num_beams, slot_R].set(token_R)
    mine_RS = state["mine"].at[row_R, slot_R].set(True)
    past_RT = state["past"].at[row_R, t_R].set(token_R)
    slots_RS = jnp.repeat(slots_BS, num_beams, axis=0)
    place_S = jnp.arange(slots_BS.shape[1]) // num_beams
    sums_R = jnp.where(mine_RS, (slots_RS + 1) * (place_S + 1), 0).sum(axis=1)
    same_R = (past_RT * (jnp.arange(past_RT.shape[1]) + 1)).sum(axis=1) + (t_R + 1) * (t_R + 2) // 2
    wrong_R = (state["wrong"] != 0) | (sums_R != same_R)
    logits_RV = 3 * jnp.sin(sums_R[:, None] * jnp.arange(1.0, 8.0) + jnp.arange(7.0))
    logits_RV = jnp.where(wrong_R[:, None], jnp.nan, logits_RV)
    state = {"t": t_R + 1, "mine": mine_RS, "past": past_RT, "wrong": wrong_R.astype(jnp.int32)}
    return {"state": state, "memory": {"slots": slots_BS}}, logits_RV


@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_state_follows_the_hypotheses(num_beams):
    batch_size, max_len = 3, 9
    slots = max_len * num_beams
    zeros_B = jnp.arange(batch_size) * 0
    carry = {
        "state": {
            "t": zeros_B,
            "mine": jnp.zeros((batch_size, slots), bool),
            "past": jnp.zeros((batch_size, max_len), jnp.int32),
            "wrong": zeros_B,
        },
        "memory": {"slots": jnp.zeros((batch_size, slots), jnp.int32)},
    }
    options = {"num_beams": num_beams, "num_results": num_beams, "length_penalty": 1.0}
    result = jax.jit(
        lambda carry: decoding.beam_search(history_step, carry, batch_size, max_len, **options)
    )(carry)
    assert np.isfinite(result.scores_BK).all()
    num_cases = 0
    for b, k in np.ndindex(*result.lengths_BK.shape):
        length = int(result.lengths_BK[b, k])
        tokens = [BOS, *result.tokens_BKT[b, k, :length].tolist()]
        log_prob = 0.0
        for t in range(length):
            total = sum((token + 1) * (i + 1) for i, token in enumerate(tokens[: t + 1]))
            row_V = 3 * np.sin(total * np.arange(1.0, 8.0) + np.arange(7.0))
            log_prob += log_softmax(row_V)[tokens[t + 1]]
        assert math.isclose(log_prob, result.log_probs_BK[b, k], rel_tol=1e-4)
        num_cases += 1
    print(f"{num_cases} hypotheses scored again from their tokens")


@pytest.mark.parametrize("name", ["transformer", "lstm", "lstm-attention", "hybrid-attention"])
def test_every_model_scores_what_it_found(name):
    """Log-probabilities of the search, by steps and over shared or reordered caches, are those of
    the whole pass over the tokens found."""
    model, variables = make(SEQ2SEQ[name])
    source_BS, max_len = sources(4), 8
    found = tasks.search.search(model, variables, source_BS, max_len, 5, 0.6)
    tokens_BT = np.asarray(found.tokens_BKT)[:, 0]
    inputs_BT = np.concatenate([np.full((4, 1), BOS), tokens_BT[:, :-1]], axis=1)
    logits_BTV = jax.jit(model.apply)(variables, source_BS, inputs_BT.astype(np.int32))
    chosen_BT = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits_BTV)), tokens_BT[..., None], axis=-1
    )[..., 0]
    within_BT = np.arange(max_len) < np.asarray(found.lengths_BK)
    log_prob_B = (chosen_BT * within_BT).sum(axis=1)
    np.testing.assert_allclose(found.log_probs_BK[:, 0], log_prob_B, rtol=1e-5, atol=1e-5)


def test_rows_spread_over_devices_are_found_in_their_places():
    """Each device searches its own rows: the same results as one device with all of them."""
    model, variables = make(SEQ2SEQ["transformer"])
    source_BS = sources(12)
    options = (6, 3, 0.6)
    alone = tasks.search.search(model, variables, source_BS, *options)
    mesh = tasks.search.mesh_for(len(source_BS))
    assert mesh.size == 6  # of eight: the most that share twelve rows evenly
    spread = tasks.search.search(model, variables, source_BS, *options, mesh=mesh)
    assert len(spread.tokens_BKT.sharding.device_set) == 6
    assert len(np.unique(alone.scores_BK)) == 12  # no two rows are the same
    np.testing.assert_array_equal(spread.tokens_BKT, alone.tokens_BKT)
    np.testing.assert_allclose(spread.scores_BK, alone.scores_BK, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 0.6}])
def test_search_stops_early_and_loses_nothing(options):
    """With a row that never ends beside them the rows search to the end: the same result."""
    table_BCV = random_models(20, seed=6, end_bias=4.0)
    endless_1CV = random_models(1, seed=7, end_bias=-99.0)
    run = decoding.beam_search if options else decoding.greedy_search
    seen = []

    def call(table_BCV):
        def step(carry, token_R):
            jax.debug.callback(lambda: seen.append(1))
            return table_step(carry, token_R)

        carry = table_carry(table_BCV)
        return jax.jit(lambda carry: run(step, carry, len(table_BCV), T, **options))(carry)

    soon = jax.block_until_ready(call(table_BCV))
    jax.effects_barrier()
    num_soon = len(seen)
    late = jax.block_until_ready(call(np.concatenate([table_BCV, endless_1CV])))
    jax.effects_barrier()
    assert num_soon < T
    assert len(seen) - num_soon == T
    for name, array in soon._asdict().items():
        np.testing.assert_array_equal(array, getattr(late, name)[:-1], err_msg=name)
    print(f"{num_soon} steps instead of {T}")


def test_finished_hypotheses_keep_their_place():
    """EOS at once has probability 0.3 and stays the best although two live ones go on."""
    table_CV = np.full((random_models(1, 0).shape[1], V), -9.0, np.float32)
    table_CV[:, 1] = 0.0  # two tokens of almost equal probability at every later step
    table_CV[:, 4] = -0.1
    table_CV[0] = np.log([1e-6, 0.36, 1e-6, 0.3, 0.34])
    for num_beams, best in ((2, (1, 1, 1, 1)), (3, (EOS,))):
        result = search(table_CV[None], num_beams=num_beams)
        assert result.tokens_BKT[0, 0].tolist() == padded(best), num_beams
    result = search(table_CV[None], num_beams=3)
    assert math.isclose(result.log_probs_BK[0, 0], math.log(0.3), rel_tol=1e-4)


def test_each_row_has_its_own_length_limit():
    table_BCV = random_models(12, seed=8, end_bias=-1.0)
    limit_B = np.arange(12) % 6  # 0 is raised to 1 and 5 lowered to T
    num_cases = 0
    for options in ({}, {"num_beams": 3, "length_penalty": 1.0, "num_results": 3}):
        result = search(table_BCV, max_len_B=jnp.asarray(limit_B), **options)
        for b, limit in enumerate(np.clip(limit_B, 1, T)):
            alone = search(table_BCV[b : b + 1], max_len=int(limit), **options)
            np.testing.assert_array_equal(result.tokens_BKT[b, :, :limit], alone.tokens_BKT[0])
            assert (result.tokens_BKT[b, :, limit:] == PAD).all()
            np.testing.assert_array_equal(result.scores_BK[b], alone.scores_BK[0])
            np.testing.assert_array_equal(result.lengths_BK[b], alone.lengths_BK[0])
            num_cases += 1
    print(f"{num_cases} rows equal a search with that limit for all")


@pytest.mark.parametrize("options", [{}, {"num_beams": 4, "num_results": 4}])
def test_banned_tokens_and_least_length(options):
    table_BCV = random_models(30, seed=9, end_bias=2.0)
    result = search(table_BCV, min_len=2, banned=(PAD, BOS), **options)
    num_cases = 0
    for b, k in np.ndindex(*result.lengths_BK.shape):
        length = result.lengths_BK[b, k]
        tokens = tuple(result.tokens_BKT[b, k, :length].tolist())
        assert not {PAD, BOS} & set(tokens)
        assert EOS not in tokens[:2]
        assert length > 2
        # The others keep the model's own probabilities.
        expected = log_prob_of(table_BCV[b], tokens)
        assert math.isclose(result.log_probs_BK[b, k], expected, rel_tol=1e-4)
        num_cases += 1
    print(f"{num_cases} hypotheses")


def test_fewer_strings_than_beams():
    """With two tokens and two places there are three strings, whatever the beam is."""
    table_CV = random_models(1, seed=10)[0]
    result = search(table_CV[None], max_len=2, num_beams=7, num_results=7, banned=(PAD, 1, BOS))
    strings = {tuple(row) for row in result.tokens_BKT[0, :3].tolist()}
    assert strings == {(EOS, PAD), (4, EOS), (4, 4)}
    assert (result.scores_BK[0, 3:] == -np.inf).all()
    assert (result.tokens_BKT[0, 3:] == PAD).all()
    assert (result.lengths_BK[0, 3:] == 0).all()


def test_length_penalty_is_the_one_of_the_paper():
    """((5 + 7) / 6) ** 0.6 = 2 ** 0.6."""
    assert math.isclose(length_penalty_of(7, 0.6), 2**0.6, rel_tol=1e-6)
    assert length_penalty_of(31, 0.0) == 1.0


@pytest.mark.heavy
@pytest.mark.parametrize("ties", [False, True])
def test_top_k_equals_the_one_of_jax(ties):
    num_cases = 0
    for width, k in itertools.product((5, 128, 1000, 1024, 4001), (1, 3, 6)):
        values = np.random.default_rng(width + k).normal(size=(9, width)).astype(np.float32)
        values = np.round(values * 2) + 0.0 if ties else values
        if k > width:
            continue
        for num_forbidden in (0, 2):
            forbidden_V = np.zeros(width, bool)  # the largest ones, in blocks of their own
            forbidden_V[values[0].argsort()[width - num_forbidden :]] = True
            expected = jax.lax.top_k(np.where(forbidden_V, -np.inf, values), k)
            found = top_k(jnp.asarray(values), k, jnp.asarray(forbidden_V), num_forbidden)
            for got, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, right, err_msg=f"{width=} {k=}")
            num_cases += 1
    print(f"{num_cases} matrices, ids of ties included")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_len": 0}, "max_len must be at least 1, got 0."),
        ({"min_len": T}, "min_len must be in [0, max_len = 4), got 4."),
        ({"banned": (EOS,)}, "banned contains the EOS id 3: no hypothesis could end."),
        ({"num_beams": 0}, "num_beams must be at least 1, got 0."),
        (
            {"num_beams": 2, "num_results": 3},
            "num_results must be in [1, num_beams = 2], got 3.",
        ),
        (
            {"num_beams": 2, "length_penalty": -0.5},
            "length_penalty must be 0 or more, got -0.5.",
        ),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ConfigError) as error:
        search(random_models(1, seed=0), **options)
    assert str(error.value) == sentence
