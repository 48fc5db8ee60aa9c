"""Filters against brute force over Python lists."""

import math

import jax
import numpy as np
import pytest

from decoding.filters import (
    Filters,
    discourage_repeats,
    filtered,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    with_temperature,
)
from errors import ConfigError

ROWS, VOCAB = 40, 23
FILTERED = jax.jit(filtered)


def logits(seed: int = 0) -> np.ndarray:
    """Rows of any scale; some ids are forbidden already, and the last rows have ties."""
    random = np.random.default_rng(seed)
    logits_RV = random.normal(size=(ROWS, VOCAB)) * random.choice([0.1, 1, 10, 80], (ROWS, 1))
    logits_RV[: ROWS // 2, [0, 2]] = -np.inf
    logits_RV[-10:] = np.round(logits_RV[-10:])
    return logits_RV.astype(np.float32)


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row.astype(np.float64) - row.max())
    return powers / powers.sum()


def top_k(row, k):
    least = sorted(row, reverse=True)[min(k, len(row)) - 1]
    return [x if x >= least else -math.inf for x in row]


def top_p(row, p):
    probs = softmax(row)
    total, least = 0.0, -math.inf
    for i in sorted(range(len(row)), key=lambda i: -row[i]):
        least, total = row[i], total + probs[i]
        if total >= p - 1e-6:  # no row comes that close but to the whole
            break
    return [x if x >= least else -math.inf for x in row]


def min_p(row, share):
    probs = softmax(row)
    return [x if p >= share * max(probs) else -math.inf for x, p in zip(row, probs, strict=True)]


CASES = [
    *((keep_top_k, top_k, k) for k in (1, 2, 7, VOCAB, 500)),
    *((keep_top_p, top_p, p) for p in (1e-6, 0.1, 0.5, 0.93, 0.999)),
    *((keep_min_p, min_p, share) for share in (1e-4, 0.05, 0.3, 1.0)),
    *((with_temperature, lambda row, t: row / np.float32(t), t) for t in (0.3, 1.0, 4.0)),
]


@pytest.mark.parametrize("keep", dict.fromkeys(case[0] for case in CASES))
def test_a_filter_equals_brute_force(keep):
    compiled, logits_RV, num_cases = jax.jit(keep), logits(), 0
    for one, by_lists, amount in CASES:
        if one is keep:
            expected = np.array([by_lists(row, amount) for row in logits_RV])
            np.testing.assert_allclose(compiled(logits_RV, amount), expected, rtol=2e-7)
            num_cases += ROWS
    print(f"{num_cases} rows")


def test_repeats_are_discouraged_whatever_the_sign():
    logits_RV = np.array([[2.0, -2.0, 2.0, -2.0, 0.0]], np.float32)
    seen_RV = np.array([[True, True, False, False, True]])
    np.testing.assert_allclose(
        discourage_repeats(logits_RV, seen_RV, 1.25), [[1.6, -2.5, 2.0, -2.0, 0.0]]
    )
    np.testing.assert_allclose(
        discourage_repeats(logits_RV, seen_RV, 0.5), [[4.0, -1.0, 2.0, -2.0, 0.0]]
    )


def test_filters_compose_in_their_order():
    """Each sees what the one before left: temperature moves the nucleus, top_k renormalises."""
    logits_RV, seen_RV = logits(1), np.random.default_rng(2).random((ROWS, VOCAB)) < 0.5
    found = FILTERED(logits_RV, Filters(1.3, 0.7, 9, 0.85, 0.15), seen_RV)
    for row, seen, got in zip(logits_RV, seen_RV, found, strict=True):
        less = np.where(row > 0, row / np.float32(1.3), row * np.float32(1.3))
        row = np.where(seen, less, row) / np.float32(0.7)
        expected = np.array(min_p(np.array(top_p(np.array(top_k(row, 9)), 0.85)), 0.15))
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_array_equal(FILTERED(logits_RV, Filters(temperature=None)), logits_RV)


def test_one_number_for_each_row():
    logits_RV = logits()
    k_R1 = np.arange(ROWS)[:, None] % 5 + 1
    expected = np.array([top_k(row, k) for row, (k,) in zip(logits_RV, k_R1, strict=True)])
    np.testing.assert_array_equal(keep_top_k(logits_RV, k_R1), expected.astype(np.float32))


@pytest.mark.interop
def test_the_same_tokens_stay_as_in_transformers():
    """Where no logits are equal."""
    import torch
    import transformers

    logits_RV = logits()[:-10]
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, (len(logits_RV), 6)))
    seen_RV = np.zeros(logits_RV.shape, bool)
    np.put_along_axis(seen_RV, ids.numpy(), True, axis=1)
    chain = [
        transformers.RepetitionPenaltyLogitsProcessor(1.4),
        transformers.TemperatureLogitsWarper(0.8),
        transformers.TopKLogitsWarper(12),
        transformers.TopPLogitsWarper(0.9),
        transformers.MinPLogitsWarper(0.02),
    ]
    theirs = torch.from_numpy(logits_RV)
    for process in chain:
        theirs = process(ids, theirs)
    found = FILTERED(logits_RV, Filters(1.4, 0.8, 12, 0.9, 0.02), seen_RV)
    np.testing.assert_allclose(found, theirs.numpy(), rtol=1e-6)


BAD = [
    ("repetition_penalty", 0.0, "above 0"),
    ("temperature", -1.0, "above 1e-30"),
    ("temperature", 1e-39, "above 1e-30"),
    ("temperature", math.inf, "above 1e-30"),
    ("top_k", 0, "above 0"),
    ("top_p", 1.5, "above 0 and at most 1"),
    ("top_p", math.nan, "above 0 and at most 1"),
    ("min_p", 0.0, "above 0 and at most 1"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_numbers_out_of_range_are_refused(name, value, words):
    with pytest.raises(ConfigError, match=f"{name} must be {words}, got {value}"):
        Filters(**{name: value}).checked()
