"""Bands, differences, curves and bins against brute force."""

import itertools

import numpy as np
import pytest

from analysis import curves, seeds
from analysis.curves import Curve


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_a_band_lists_every_sample_of_the_seeds(num):
    values_SX = np.random.default_rng(num).normal(size=(num, 4))
    means = [
        values_SX[list(pick)].mean(axis=0) for pick in itertools.product(range(num), repeat=num)
    ]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    found = seeds.band(values_SX)
    np.testing.assert_allclose(found.mean, values_SX.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.low, low, rtol=1e-12)
    np.testing.assert_allclose(found.high, high, rtol=1e-12)


def test_a_band_of_many_seeds_has_the_width_of_a_normal_mean():
    values_S = np.random.default_rng(0).normal(size=200)
    found = seeds.band(values_S)
    width = 2 * 1.96 * values_S.std() / 200**0.5
    assert found.high - found.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("num", [2, 3, 6])
def test_p_is_the_share_of_sign_changes_at_least_as_large(num):
    random = np.random.default_rng(num)
    first, second = random.normal(size=num) + 1, random.normal(size=num)
    found = seeds.difference(first, second)
    larger = 0
    for signs in itertools.product([1, -1], repeat=num):
        total = sum(sign * (a - b) for sign, a, b in zip(signs, first, second, strict=True))
        larger += abs(total) >= abs((first - second).sum()) - 1e-12
    assert found.p == larger / 2**num
    assert found.mean == pytest.approx((first - second).mean())
    assert found.least_p == 2 / 2**num
    assert seeds.difference(first, first + 9).p == found.least_p  # as sure as so few can be


def test_it_says_what_few_seeds_cannot_show():
    assert seeds.difference([1.0], [2.0]).p is None
    assert "nothing can be said" in seeds.what_can_be_said(1)
    assert "cannot come below 0.25" in seeds.what_can_be_said(3)
    assert "No difference can reach p < 0.05" in seeds.what_can_be_said(5)
    assert "No difference" not in seeds.what_can_be_said(6)


def test_a_mean_curve_keeps_the_points_and_joins_them_where_they_differ():
    same = [Curve(np.array([1.0, 2, 4]), np.array([3.0, 2, 1])) for _ in range(2)]
    x, band = curves.mean_curve(same)
    assert x.tolist() == [1, 2, 4]
    assert band.mean.tolist() == [3, 2, 1]
    later = Curve(np.array([2.0, 3, 6]), np.array([4.0, 2, 2]))
    x, band = curves.mean_curve([same[0], later])
    assert x.tolist() == [2, 3, 4]  # the range that both have
    np.testing.assert_allclose(band.mean, [3.0, 1.75, 1.5])


def test_the_first_point_at_or_below_a_target():
    curve = Curve(np.array([10.0, 20, 30, 40]), np.array([4.0, 2, 3, 1]))
    assert curves.reached(curve, 5) == 10
    assert curves.reached(curve, 2) == 20
    assert curves.reached(curve, 3) == 15
    assert curves.reached(curve, 1.5) == 37.5
    assert curves.reached(curve, 0.5) is None


def test_bins_against_a_loop():
    random = np.random.default_rng(0)
    keys, values = random.integers(0, 40, 300), random.normal(size=300)
    starts = curves.geometric_bins(30)
    assert starts[:6].tolist() == [1, 2, 3, 4, 6, 8]
    assert starts[-1] == 31
    found = curves.binned(keys, values, starts)
    for first, last, mean, count in zip(*found, strict=True):
        inside = [v for k, v in zip(keys, values, strict=True) if first <= k <= last]
        assert len(inside) == count
        assert mean == pytest.approx(np.mean(inside))
    assert found.num_values.sum() == ((keys >= 1) & (keys <= 30)).sum()
