"""Scores of labels and numbers against loops, SciPy and their limits."""

import numpy as np
import pytest
import scipy.stats

from tasks import scores


def drawn(num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, 60)
    guesses = random.integers(0, num_classes, 60)
    return labels, np.where(random.random(60) < 0.5, labels, guesses)


def by_loops(labels, answers, num_classes) -> dict[str, float]:
    """F1 by precision and recall; Matthews' correlation as that of two one-hot matrices."""
    f1 = []
    for c in range(num_classes):
        right = sum(1 for a, b in zip(labels, answers, strict=True) if a == b == c)
        precision = right / max(1, sum(answers == c))
        recall = right / max(1, sum(labels == c))
        if sum(answers == c) + sum(labels == c):
            f1.append(2 * precision * recall / (precision + recall) if right else 0.0)
    one, other = (np.eye(num_classes)[x] for x in (labels, answers))
    one, other = one - one.mean(0), other - other.mean(0)
    matthews = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    return {
        "accuracy": float(np.mean(labels == answers)),
        "macro_f1": float(np.mean(f1)),
        "matthews": float(matthews),
    }


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_scores_of_classes_equal_loops(num_classes):
    labels, answers = drawn(num_classes, seed=num_classes)
    matrix = scores.confusion(labels, answers, num_classes)
    found = scores.class_scores(matrix)
    for name, expected in by_loops(labels, answers, num_classes).items():
        assert found[name] == pytest.approx(expected), name


def test_scores_of_one_class_and_of_all_right_answers():
    one = scores.class_scores(scores.confusion(np.zeros(5, int), np.zeros(5, int), 2))
    assert (one["accuracy"], one["macro_f1"], one["matthews"]) == (1, 1, 0)
    labels = np.array([0, 1, 2, 1])
    right = scores.class_scores(scores.confusion(labels, labels, 4))  # one class is not there
    assert [float(x) for x in right.values()] == pytest.approx([1, 1, 1])


def test_correlations_equal_those_of_scipy_with_ties():
    random = np.random.default_rng(0)
    x = random.integers(0, 6, 80).astype(float)
    y = x + random.normal(0, 2, 80).round()
    found = scores.correlations(x, y)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    np.testing.assert_array_equal(scores.ranks(y), scipy.stats.rankdata(y))
    assert scores.correlations(x, np.ones(80)) == {"pearson": 0.0, "spearman": 0.0}
    cubed = scores.correlations(x, x**3)
    assert cubed["spearman"] == pytest.approx(1) != cubed["pearson"]


def interval(note: str) -> tuple[float, float]:
    words = note.replace(",", "").split()
    return float(words[3]), float(words[5])


def test_intervals_are_two_standard_errors_wide():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 400)
    answers = np.where(random.random(400) < 0.8, labels, 1 - labels)
    found, notes = scores.score_classes(labels, answers, 2)
    low, high = interval(notes["accuracy_signature"])
    error = np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400)
    assert low == pytest.approx(found["accuracy"] - 1.96 * error, abs=0.01)
    assert high == pytest.approx(found["accuracy"] + 1.96 * error, abs=0.01)
    assert "400 texts" in notes["matthews_signature"]
    x = random.normal(size=200)
    numbers, notes = scores.score_numbers(x, x + random.normal(size=200))
    low, high = interval(notes["pearson_signature"])
    z = np.arctanh(numbers["pearson"])  # Fisher's transformation
    assert [low, high] == pytest.approx(np.tanh([z - 0.139, z + 0.139]), abs=0.03)


def test_words_of_one_text_are_drawn_together():
    labels = np.repeat([0, 1], 50)
    answers = np.zeros(100, int)  # one text all right, one all wrong
    _, alone = scores.score_classes(labels, answers, 2)
    _, together = scores.score_classes(labels, answers, 2, np.repeat([3, 8], 50))
    assert interval(together["accuracy_signature"]) == (0.0, 1.0)
    low, high = interval(alone["accuracy_signature"])
    assert 0.35 < low < high < 0.65
