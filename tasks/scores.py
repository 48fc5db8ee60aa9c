"""Scores of predicted labels and numbers, each with a bootstrap interval. NumPy only.

Axes: E examples, C classes, R resamples.
"""

import numpy as np

from data.resamples import resamples

NUM_RESAMPLES = 1000
LEVELS = (0.025, 0.975)
Scores = dict[str, float]


def confusion(labels_E: np.ndarray, found_E: np.ndarray, num_classes: int) -> np.ndarray:
    """How many examples of each class (first axis) were taken for each (second): (C, C)."""
    flat = np.bincount(labels_E * num_classes + found_E, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def class_scores(confusion_CC: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of confusion matrices, (..., C, C) to (...).

    accuracy: the share of right answers.
    macro_f1: the mean over classes of 2 right / (labels + answers) of the class; a class that is
        neither among labels nor answers does not count.
    matthews: the correlation of labels and answers (Matthews 1975), for any number of classes
        (Gorodkin 2004); 0 where all labels or all answers are one class.
    """
    counts = confusion_CC.astype(np.float64)
    right = np.trace(counts, axis1=-2, axis2=-1)
    labels, answers, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    both = labels + answers
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    spread = (total**2 - (labels**2).sum(-1)) * (total**2 - (answers**2).sum(-1))
    covariance = right * total - (labels * answers).sum(-1)
    root = np.sqrt(spread)
    return {
        "accuracy": right / total,
        "macro_f1": f1.sum(-1) / (both > 0).sum(-1),
        "matthews": np.divide(covariance, root, out=np.zeros_like(root), where=root > 0),
    }


def correlations(labels_E: np.ndarray, found_E: np.ndarray) -> Scores:
    """Pearson's and Spearman's correlation of two lists of numbers; 0 where one is constant."""
    return {
        "pearson": pearson(labels_E, found_E),
        "spearman": pearson(ranks(labels_E), ranks(found_E)),
    }


def pearson(x_E: np.ndarray, y_E: np.ndarray) -> float:
    """sum (x - mean x)(y - mean y) / (E std x std y)."""
    x_E, y_E = x_E - x_E.mean(), y_E - y_E.mean()
    spread = float(np.sqrt((x_E**2).sum() * (y_E**2).sum()))
    return float((x_E * y_E).sum() / spread) if spread > 0 else 0.0


def ranks(x_E: np.ndarray) -> np.ndarray:
    """The place of each number in their order, from 1; equal ones share the mean of theirs."""
    _, inverse_E, counts = np.unique(x_E, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse_E]


def with_intervals(
    scores: dict[str, np.ndarray] | Scores, resampled: dict[str, np.ndarray], what: str
) -> tuple[Scores, dict[str, str]]:
    """The scores, and the signature of each: the interval of 95 % of its resamples (R,)."""
    notes = {}
    for name, values_R in resampled.items():
        low, high = np.quantile(values_R, LEVELS)
        notes[f"{name}_signature"] = (
            f"95 % interval {low:.4g} to {high:.4g}, bootstrap over {what}, {len(values_R)} times"
        )
    return {name: float(value) for name, value in scores.items()}, notes


def score_classes(
    labels_E: np.ndarray, found_E: np.ndarray, num_classes: int, groups_E: np.ndarray | None = None
) -> tuple[Scores, dict[str, str]]:
    """class_scores of answers, with intervals.

    Args:
        groups_E: the number of the text that each answer belongs to, where a text has several, as
            in tagging: texts are drawn, and not words. None: each answer is a text.
    """
    groups_E = np.arange(len(labels_E)) if groups_E is None else groups_E
    names, groups_E = np.unique(groups_E, return_inverse=True)
    cells_E, size = labels_E * num_classes + found_E, num_classes**2
    drawn = [
        np.bincount(cells_E, counts[groups_E], size).reshape(num_classes, num_classes)
        for counts_R in resamples(len(names), NUM_RESAMPLES, seed=0)
        for counts in counts_R
    ]
    scores = class_scores(confusion(labels_E, found_E, num_classes))
    return with_intervals(scores, class_scores(np.array(drawn)), f"{len(names)} texts")


def score_numbers(labels_E: np.ndarray, found_E: np.ndarray) -> tuple[Scores, dict[str, str]]:
    """correlations of answers, with intervals."""
    drawn = [
        correlations(*(np.repeat(x_E, counts_E) for x_E in (labels_E, found_E)))
        for counts_RE in resamples(len(labels_E), NUM_RESAMPLES, seed=0)
        for counts_E in counts_RE
    ]
    resampled = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    scores = correlations(labels_E, found_E)
    return with_intervals(scores, resampled, f"{len(labels_E)} texts")
