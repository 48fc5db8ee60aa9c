"""Intervals and significance against formulas, and BLEU of sums against sacreBLEU."""

import numpy as np
import pytest
import sacrebleu

from analysis import bootstrap

OUTPUTS = ["the cat sat on the mat today", "a dog", "he went home at five o'clock", "no"]
REFERENCES = ["the cat sat on a mat today", "a dog ran", "he went home by five o'clock", "yes"]


def test_an_interval_of_a_mean_is_two_standard_errors_wide():
    changes = np.random.default_rng(0).normal(0.3, 1.0, (1, 400))
    found = bootstrap.compare_means(changes, np.ones(400), 4000, seed=0)
    error = changes.std() / 20
    assert found.change[0] == pytest.approx(changes.mean())
    assert found.low[0] == pytest.approx(changes.mean() - 1.96 * error, abs=0.01)
    assert found.high[0] == pytest.approx(changes.mean() + 1.96 * error, abs=0.01)


def test_longer_examples_weigh_more():
    found = bootstrap.compare_means(np.array([[1.0, 6.0]]), np.array([1.0, 3.0]), 10, seed=0)
    assert found.change[0] == 7 / 4
    assert set(np.round([found.low[0], found.high[0]], 6)) <= {1.0, 1.75, 2.0}


def test_p_finds_what_is_there_and_nothing_else():
    random = np.random.default_rng(1)
    changes = random.normal(0, 1, (3, 200)) + np.array([[0.0], [1.0], [-1.0]])
    changes[0] -= changes[0].mean()
    found = bootstrap.compare_means(changes, np.ones(200), 999, seed=0)
    assert found.p[0] > 0.5
    assert found.p[1] == found.p[2] == pytest.approx(2 / 1000 * 3 / 2)
    same = bootstrap.compare_means(np.zeros((1, 5)), np.ones(5), 99, seed=0)
    assert same.p[0] == 1


def test_adjusted_by_hand():
    found = bootstrap.adjusted(np.array([0.04, 0.01, 0.03, 0.5]))
    np.testing.assert_allclose(found, [0.16 / 3, 0.04, 0.16 / 3, 0.5])


def test_bleu_of_sums_is_that_of_sacrebleu():
    found = bootstrap.bleu_statistics(OUTPUTS, REFERENCES)
    expected = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score
    assert bootstrap.bleu(found.sum(0)) == pytest.approx(expected)
    smoothed = sacrebleu.corpus_bleu(OUTPUTS[2:3], [REFERENCES[2:3]]).score  # no four in a row
    assert bootstrap.bleu(found[2]) == pytest.approx(smoothed)
    assert smoothed > 0


def test_a_score_is_compared_on_the_same_examples():
    """Two systems that are the same differ by nothing in any resample."""
    first = bootstrap.bleu_statistics(OUTPUTS, REFERENCES)
    best = bootstrap.bleu_statistics(REFERENCES, REFERENCES)
    found = bootstrap.compare_scores(bootstrap.bleu, first, [first, best], 50, seed=0)
    assert found.change[0] == found.low[0] == found.high[0] == 0
    assert found.change[1] == pytest.approx(100 - bootstrap.bleu(first.sum(0)))
    assert found.low[1] > 0
