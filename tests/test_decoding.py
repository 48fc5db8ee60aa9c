"""Search against enumeration of all strings, and against a search over Python lists."""

import itertools

import numpy as np
import pytest
from decoding_cases import (
    ALPHAS,
    EOS,
    Hypothesis,
    T,
    V,
    assert_row,
    every_hypothesis,
    list_beam_search,
    log_prob_of,
    prefix_code,
    random_models,
    search,
)


@pytest.mark.parametrize("end_bias", [-4.0, 0.0, 2.0])
def test_wide_beam_equals_all_strings(end_bias):
    table_BCV = random_models(12, seed=1, end_bias=end_bias)
    num_cases = 0
    for alpha in ALPHAS:
        # 64 prefixes of three tokens have 320 extensions: with 320 beams none is dropped.
        result = search(table_BCV, num_beams=320, length_penalty=alpha, num_results=6)
        for b, table_CV in enumerate(table_BCV):
            assert_row(result, b, every_hypothesis(table_CV, alpha))
            num_cases += 1
    print(f"{num_cases} searches equal the best 6 of all {V**T} strings")


@pytest.mark.parametrize("num_beams", [1, 2, 3, 5])
def test_beam_equals_a_search_over_lists(num_beams):
    num_cases = 0
    for end_bias in (-2.0, 0.0, 1.0):
        table_BCV = random_models(40, seed=2, end_bias=end_bias)
        for alpha in ALPHAS:
            result = search(
                table_BCV, num_beams=num_beams, length_penalty=alpha, num_results=num_beams
            )
            for b, table_CV in enumerate(table_BCV):
                assert_row(result, b, list_beam_search(table_CV, alpha, num_beams))
                num_cases += 1
    print(f"{num_cases} searches equal one over Python lists")


def test_best_hypothesis_is_certain_before_the_search_stops():
    """Asking for one result may stop sooner than asking for all, and finds the same one."""
    num_cases = 0
    for end_bias, alpha in itertools.product((-1.0, 0.0, 1.0), ALPHAS):
        table_BCV = random_models(40, seed=3, end_bias=end_bias)
        one = search(table_BCV, num_beams=4, length_penalty=alpha)
        all_four = search(table_BCV, num_beams=4, length_penalty=alpha, num_results=4)
        for name, array in one._asdict().items():
            np.testing.assert_array_equal(array[:, 0], getattr(all_four, name)[:, 0])
        num_cases += len(table_BCV)
    print(f"{num_cases} rows")


@pytest.mark.parametrize("whole", [False, True], ids=["floats", "ties"])
def test_one_beam_is_greedy(whole):
    num_cases = 0
    for seed, end_bias in itertools.product(range(5), (-2.0, 0.0, 2.0)):
        table_BCV = random_models(40, seed, end_bias, whole)
        greedy, beam = search(table_BCV), search(table_BCV, num_beams=1)
        for name, array in greedy._asdict().items():
            np.testing.assert_array_equal(array, getattr(beam, name), err_msg=name)
        num_cases += len(table_BCV)
    print(f"{num_cases} rows, bit for bit")


def test_greedy_takes_the_first_of_the_best_at_each_step():
    table_BCV = random_models(100, seed=4, whole=True)
    result = search(table_BCV)
    for b, table_CV in enumerate(table_BCV):
        tokens: tuple[int, ...] = ()
        while len(tokens) < T and EOS not in tokens:
            tokens += (int(np.argmax(table_CV[prefix_code(tokens)])),)
        assert_row(result, b, [Hypothesis(tokens, *[log_prob_of(table_CV, tokens)] * 2)])
    print(f"{len(table_BCV)} rows")


def test_rows_of_a_batch_are_independent():
    table_BCV = random_models(24, seed=5)
    options = {"num_beams": 3, "length_penalty": 1.0, "num_results": 2}
    together = search(table_BCV, **options)
    order_B = np.random.default_rng(0).permutation(len(table_BCV))
    shuffled = search(table_BCV[order_B], **options)
    for name, array in together._asdict().items():
        np.testing.assert_array_equal(array[order_B], getattr(shuffled, name), err_msg=name)
    for b in range(6):
        alone = search(table_BCV[b : b + 1], **options)
        for name, array in together._asdict().items():
            np.testing.assert_array_equal(array[b : b + 1], getattr(alone, name), err_msg=name)
