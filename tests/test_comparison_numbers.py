"""Numbers of a comparison that need no run: pairs over rows, reaches, places in a document."""

import numpy as np
import pytest

from experiments.comparison.examples import paired_differences
from experiments.comparison.horizon import horizons
from experiments.comparison.tokens import TokenLosses, positions


def losses_of(nll_BT, targets=0):
    """Token losses of rows of equal lengths."""
    nll_BT = np.asarray(nll_BT, float)
    row_BT = np.broadcast_to(np.arange(len(nll_BT))[:, None], nll_BT.shape).ravel()
    rest = [np.full(row_BT.shape, value) for value in (targets, 1, 1)]
    return TokenLosses(nll_BT.ravel(), row_BT, *rest)


def test_final_models_are_compared_over_the_rows_that_both_have_read():
    random = np.random.default_rng(0)
    easy_BT = random.gamma(2, size=(40, 5))  # rows differ far more than the models
    better = [losses_of(easy_BT + 0.01 * random.normal(size=easy_BT.shape)) for _ in range(2)]
    worse = [losses_of(easy_BT + 0.05)] * 2
    found = paired_differences({"better": better, "worse": worse, "same": better})
    assert (found["num_rows"], found["num_tokens"]) == (40, 200)
    by_pair = {(pair["first"], pair["second"]): pair for pair in found["pairs"]}
    sure = by_pair["better", "worse"]
    assert sure["mean"] == pytest.approx(-0.05, abs=2e-3)
    assert sure["high"] < -0.04
    assert sure["p"] < 1e-3
    assert by_pair["better", "same"]["p"] == 1
    assert paired_differences({"better": better, "other": [losses_of(easy_BT, targets=1)]}) is None
    assert paired_differences({"alone": better}) is None


def test_the_reach_of_a_gradient_is_over_the_sum_of_its_norms():
    found = horizons(
        {"one": [np.array([4.0, 4, 1, 0.25]), np.array([1.0, 1, 4, 16])], "none": [None]}
    )
    assert list(found) == ["one"]
    assert found["one"]["mean"] == pytest.approx([2, 2, 2, 2])  # geometric
    assert found["one"]["share"][0] == pytest.approx((4 / 9.25 + 1 / 22) / 2)
    assert found["one"]["share"][-1] == pytest.approx(1)
    assert found["one"]["within"] == {"0.5": (2 + 4) / 2, "0.9": (3 + 4) / 2}


def test_positions_in_rows_and_streams():
    segments_BT = np.array([[1, 1, 2, 2, 2], [1, 2, 3, 3, 0]])
    batch = {"segments": segments_BT, "targets": segments_BT}
    position_BT, _ = positions(batch, 0)
    assert position_BT.tolist()[0] == [1, 2, 1, 2, 3]
    assert position_BT.tolist()[1][:4] == [1, 1, 1, 2]
    streams = {"segments": np.array([[1, 1, 2], [2, 2, 3]]), "targets": np.zeros((2, 3))}
    position_BT, before_B = positions(streams, np.array([4, 9]))
    assert position_BT.tolist() == [[5, 6, 1], [1, 2, 1]]
    assert before_B.tolist() == [1, 1]
    targets = {"targets": np.zeros((1, 3))}
    assert positions(targets, 0)[0].tolist() == [[1, 2, 3]]
    masked = {
        "targets": np.zeros((1, 2)),
        "places": np.array([[4, 9]]),
        "segments": np.ones((1, 12)),
    }
    assert positions(masked, 0)[0].tolist() == [[5, 10]]
