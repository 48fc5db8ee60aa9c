"""Sampling against the exact distribution of models that are tables."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_cases import (
    EOS,
    PAD,
    T,
    V,
    list_beam_search,
    log_softmax,
    prefix_code,
    random_models,
    table_carry,
    table_step,
)

from decoding import sampling
from decoding.filters import Filters
from decoding.sampling import Rules
from errors import ConfigError

RULES, FREE = Rules(EOS, PAD), Filters()


@functools.partial(jax.jit, static_argnames=("max_len", "rules", "each"))
def _sample(table_BCV, seed_R, filters, prompt_RT, max_len, rules, each):
    carry = table_carry(table_BCV)
    logits_BV = carry["memory"]["table"][:, 0]  # after the empty prefix
    carry["state"]["length"] += 1  # which is no BOS to be read
    carry, logits_RV = sampling.repeated((carry, logits_BV), each)
    lengths_R = jnp.full(len(seed_R), prompt_RT.shape[1])
    samples = sampling.start(
        carry, logits_RV, seed_R, max_len, filters, rules, prompt_RT, lengths_R
    )
    return sampling.advance(table_step, samples, filters, rules, max_len)


def sample(table_BCV, seeds, filters=FREE, max_len=T, rules=RULES, prompt_RT=None):
    """Samples of each table, as many as there are seeds over tables."""
    each = len(seeds) // len(table_BCV)
    prompt_RT = np.zeros((len(seeds), 1), np.int32) if prompt_RT is None else prompt_RT
    seeds = np.asarray(seeds, np.uint32)
    found = _sample(table_BCV, seeds, filters, prompt_RT, max_len, rules, each)
    return jax.tree.map(np.asarray, found._replace(carry=None))


def strings_of(samples) -> list[tuple[int, ...]]:
    pairs = zip(samples.tokens_RT.tolist(), samples.length_R, strict=True)
    return [tuple(tokens[:length]) for tokens, length in pairs]


def every_string(table_CV: np.ndarray, length: int) -> dict[tuple[int, ...], float]:
    """The probability of each string that ends with EOS or at the length."""
    log_probs_CV, found = log_softmax(table_CV), {}
    for string in itertools.product(range(V), repeat=length):
        if EOS in string:
            string = string[: string.index(EOS) + 1]
        logs = [log_probs_CV[prefix_code(string[:t]), token] for t, token in enumerate(string)]
        found[string] = math.exp(sum(logs))
    return found


def chi_square(samples, exact: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; rare strings are one class."""
    found = strings_of(samples)
    assert set(found) <= set(exact), "a string that cannot be"
    rare = {string for string, p in exact.items() if p * len(found) < 5}
    classes = {string: p for string, p in exact.items() if string not in rare}
    classes["rare"] = sum(exact[string] for string in rare) + 1e-12
    counts = dict.fromkeys(classes, 0)
    for string in found:
        counts["rare" if string in rare else string] += 1
    expected = {name: p * len(found) for name, p in classes.items()}
    total = sum((counts[name] - e) ** 2 / e for name, e in expected.items() if e > 1)
    return total, sum(e > 1 for e in expected.values()) - 1


def assert_likely(statistic: float, freedom: int) -> None:
    """Below the 0.9999 quantile (Wilson & Hilferty 1931)."""
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    print(f"chi-square {statistic:.1f}, {freedom} degrees of freedom, limit {limit:.1f}")
    assert statistic < limit


NUM = 20_000


def test_samples_have_the_exact_distribution():
    table_1CV = random_models(1, seed=1)
    samples = sample(table_1CV, range(NUM), max_len=3)
    assert_likely(*chi_square(samples, every_string(table_1CV[0], 3)))
    other = every_string(random_models(1, seed=2)[0], 3)
    statistic, freedom = chi_square(
        samples, other | dict.fromkeys(strings_of(samples), 0.0) | other
    )
    assert statistic > 5 * freedom, "the test would see another distribution"


def test_filtered_samples_have_the_filtered_distribution():
    table_1CV = random_models(1, seed=3)
    kept_CV = table_1CV[0] / np.float32(0.7)
    kept_CV = np.where(kept_CV >= np.sort(kept_CV)[:, [-3]], kept_CV, -1e9)  # top 3
    samples = sample(table_1CV, range(NUM), Filters(temperature=0.7, top_k=3), max_len=3)
    exact = {string: p for string, p in every_string(kept_CV, 3).items() if p > 0}
    assert_likely(*chi_square(samples, exact))


def test_a_sample_depends_on_its_seed_alone():
    """Not on its neighbours, their number, or the place in the batch."""
    table_BCV = random_models(6, seed=4)
    seeds = [3, 99, 3, 2**32 - 1, 7, 0]
    together = sample(table_BCV, seeds)
    for b, seed in enumerate(seeds):
        alone = sample(table_BCV[b : b + 1], [seed])
        for name in ("tokens_RT", "log_probs_RT", "drawn_log_probs_RT", "length_R"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[b])
    order = [4, 0, 5, 2, 1, 3]
    shuffled = sample(table_BCV[order], np.array(seeds)[order])
    np.testing.assert_array_equal(shuffled.tokens_RT, together.tokens_RT[order])
    several = sample(table_BCV[:1], range(50))
    assert len(set(strings_of(several))) > 10, "other seeds, other samples"
    again = sample(table_BCV[:1], range(25, 50))
    np.testing.assert_array_equal(again.tokens_RT, several.tokens_RT[25:])


def test_log_probs_before_and_after_the_filters():
    table_BCV = random_models(30, seed=5)
    samples = sample(table_BCV, range(30), Filters(temperature=0.5, top_k=2))
    for b, string in enumerate(strings_of(samples)):
        for t, token in enumerate(string):
            row = table_BCV[b, prefix_code(string[:t])].astype(np.float64)
            assert math.isclose(
                samples.log_probs_RT[b, t], log_softmax(row)[token], rel_tol=1e-4, abs_tol=1e-5
            )
            best = np.sort(row / 0.5)[-2:]
            after = row[token] / 0.5 - np.log(np.exp(best - best[-1]).sum()) - best[-1]
            assert math.isclose(samples.drawn_log_probs_RT[b, t], after, rel_tol=1e-4, abs_tol=1e-5)
        assert (samples.log_probs_RT[b, len(string) :] == 0).all()


def test_without_temperature_it_is_greedy_search():
    table_BCV = random_models(40, seed=6)
    samples = sample(table_BCV, range(40), Filters(temperature=None))
    by_top_k = sample(table_BCV, range(40), Filters(top_k=1))
    for b, string in enumerate(strings_of(samples)):
        expected = list_beam_search(table_BCV[b], 0.0, 1)[0]
        assert string == expected.tokens
        assert math.isclose(samples.log_probs_RT[b].sum(), expected.log_prob, rel_tol=1e-5)
    np.testing.assert_array_equal(samples.tokens_RT, by_top_k.tokens_RT)


def test_what_ends_a_sample_and_what_is_never_drawn():
    table_BCV = random_models(200, seed=7)
    free = strings_of(sample(table_BCV, range(200)))
    stops = ((1, 4), (2,), (4, 4))
    rules = Rules(EOS, PAD, stops=stops)
    stopped = sample(table_BCV, range(200), rules=rules)
    num_stopped = 0
    for whole, string in zip(free, strings_of(stopped), strict=True):
        ends = [n for n in range(1, 5) for stop in stops if whole[:n][-len(stop) :] == stop]
        assert string == whole[: min([*ends, len(whole)])]
        num_stopped += len(string) < len(whole)
    assert num_stopped > 20
    assert (stopped.tokens_RT[np.arange(T) >= stopped.length_R[:, None]] == PAD).all()
    banned = sample(table_BCV, range(200), rules=Rules(EOS, PAD, banned=(1, 4)))
    assert not {1, 4} & set(itertools.chain(*strings_of(banned)))


def test_a_row_without_a_prompt_has_ended():
    """It fills the batch, and must not keep a loop going."""
    samples = sample(random_models(4, seed=7), range(4), prompt_RT=np.zeros((4, 0), np.int32))
    assert samples.ended_R.all()
    assert (samples.length_R == 0).all()
    assert (samples.tokens_RT == PAD).all()


def test_repeats_of_prompt_and_sample_are_discouraged():
    """With an enormous penalty all tokens differ, from each other and from the prompt's."""
    table_BCV = np.abs(random_models(50, seed=8))
    prompts_RT = np.random.default_rng(0).integers(0, V, (50, 1)).astype(np.int32)
    filters = Filters(repetition_penalty=1e9, temperature=0.01)
    rules = Rules(EOS, PAD, banned=(EOS,))
    samples = sample(table_BCV, range(50), filters, 3, rules, prompts_RT)
    for prompt, string in zip(prompts_RT.tolist(), strings_of(samples), strict=True):
        fresh = {*string} - {*prompt}
        assert len(fresh) == len(string)


def test_rules_that_leave_nothing_are_refused():
    table_1CV = random_models(1, seed=9)
    with pytest.raises(ConfigError, match="max_len must be at least 1, got 0"):
        sample(table_1CV, [0], max_len=0)
    with pytest.raises(ConfigError, match="A stop word has no tokens"):
        sample(table_1CV, [0], rules=Rules(EOS, PAD, stops=((),)))
    with pytest.raises(ConfigError, match="All 5 ids are banned"):
        sample(table_1CV, [0], rules=Rules(EOS, PAD, banned=tuple(range(V))))
