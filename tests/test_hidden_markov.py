"""The language of known entropy: its floor against every sentence there is."""

import itertools

import numpy as np
import pytest

import data

TINY = {"num_states": 3, "num_symbols": 2, "length": 5, "sharpness": 6, "seed": 1}


def build(**options):
    return data.build_source({"name": "hidden_markov", **TINY, **options}, "")


def probability(source, symbols) -> float:
    """p(x_1, ..., x_n), a sum over all paths of hidden states."""
    total = 0.0
    for path in itertools.product(range(source.num_states), repeat=len(symbols)):
        p = 1 / source.num_states
        for i, (state, symbol) in enumerate(zip(path, symbols, strict=True)):
            p *= source.transition_SS[path[i - 1], state] if i else 1.0
            p *= source.emission_SV[state, symbol]
        total += p
    return total


def brute_force(source) -> list[float]:
    """Entropy of each symbol given those before it: differences of entropies of beginnings."""
    entropies = [0.0]
    for length in range(1, source.length + 1):
        strings = itertools.product(range(source.num_symbols), repeat=length)
        p = np.array([probability(source, string) for string in strings])
        assert p.sum() == pytest.approx(1)
        entropies.append(float(-(p * np.log(p)).sum()))
    return np.diff(entropies).tolist()


def test_the_floor_equals_brute_force_on_a_tiny_language():
    source = build()
    expected = brute_force(source)
    assert np.ptp(expected) > 0.02  # a symbol depends on those before it
    found = source.entropy()
    np.testing.assert_allclose(found.by_position, [*expected, 0.0], atol=2e-3)
    assert found.per_token == pytest.approx(
        sum(expected) / (source.length + 1), abs=5 * found.standard_error
    )
    assert 0 < found.standard_error < 1e-3


def test_the_loss_of_the_true_model_is_the_probability_of_a_sentence():
    source = build()
    strings = list(itertools.product(range(source.num_symbols), repeat=source.length))
    texts = [" ".join(f"s{symbol}" for symbol in string) for string in strings]
    losses = source.loss_of_truth(texts)
    p = np.array([probability(source, string) for string in strings])
    np.testing.assert_allclose(losses.sum(axis=1), -np.log(p), rtol=1e-10)
    assert (losses[:, -1] == 0).all()
    # over all sentences it is the entropy
    np.testing.assert_allclose(p @ losses, [*brute_force(source), 0.0], rtol=1e-10)


def test_where_symbols_tell_the_state_the_floor_is_that_of_a_markov_chain():
    source = build(num_symbols=3)
    source.emission_SV = np.eye(3) * (1 - 2e-12) + 1e-12
    state_S, expected = np.full(3, 1 / 3), [np.log(3)]
    rows_S = -(source.transition_SS * np.log(source.transition_SS)).sum(axis=1)
    for _ in range(source.length - 1):
        expected.append(float(state_S @ rows_S))
        state_S = state_S @ source.transition_SS
    np.testing.assert_allclose(source.entropy().by_position[:-1], expected, atol=5e-3)


def test_sentences_have_the_probabilities_of_the_model():
    # Without a held-out split to keep apart from: every string may stand in "test" but once.
    source = build(length=2, num_train=1, num_validation=1, num_test=1)
    uniform = np.random.default_rng(0).random
    drawn = [source.draw(lambda n: int(uniform() * n)).source for _ in range(4000)]
    for string in itertools.product(range(2), repeat=2):
        text = " ".join(f"s{symbol}" for symbol in string)
        assert drawn.count(text) / 4000 == pytest.approx(probability(source, string), abs=0.03)


def test_a_seed_gives_one_language_for_ever():
    small = {"num_train": 300, "num_validation": 40, "num_test": 40}
    first, other = (
        data.build_source({"name": "hidden_markov", **small, "seed": s}, "") for s in (0, 1)
    )
    assert first.fingerprint() != other.fingerprint()
    assert first.fingerprint()[:12] == "246b5dbebeab"
