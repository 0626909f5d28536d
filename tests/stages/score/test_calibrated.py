"""Calibration is fitted elsewhere than where it is used, and cannot turn an inverted explanation round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.score.scorers import fit_calibration, shares_of
from stages.score.statistics import Floats


def r_squared(true: Floats, expected: Floats) -> float:
    return shares_of(true, expected)["r_squared"]


def absolute_deviation(true: Floats, expected: Floats) -> float:
    return shares_of(true, expected)["absolute_deviation"]


rng = np.random.default_rng(0)
EXPECTED = rng.uniform(0, 10, size=500)
TRUE = 0.3 * EXPECTED - 1 + 0.1 * rng.normal(size=500)


def test_linear_finds_the_line() -> None:
    calibrate = fit_calibration("linear", TRUE, EXPECTED)
    np.testing.assert_allclose(calibrate(np.array([0.0, 10.0])), [-1.0, 2.0], atol=0.05)


def test_linear_never_has_a_negative_slope() -> None:
    calibrate = fit_calibration("linear", -TRUE, EXPECTED)
    np.testing.assert_allclose(calibrate(np.array([0.0, 10.0])), np.full(2, -TRUE.mean()))


def test_linear_of_a_constant_prediction_is_the_mean() -> None:
    calibrate = fit_calibration("linear", TRUE, np.full(500, 3.0))
    np.testing.assert_allclose(calibrate(np.array([3.0])), TRUE.mean())


def test_percentile_maps_sorted_values_onto_each_other() -> None:
    calibrate = fit_calibration("percentile", np.array([5.0, 1.0, 3.0]), np.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(calibrate(np.array([0.0, 0.5, 1.0, 2.0, 9.0])), [1, 2, 3, 5, 5])


def test_percentile_of_ties_is_the_largest_as_in_the_code_of_bills_et_al() -> None:
    true, expected = np.array([-0.1, 0.3, -0.05, 0.8, 0.2]), np.array([0.0, 1.0, 0.0, 3.0, 1.0])
    found = fit_calibration("percentile", true, expected)(np.array([0.0, 0.5, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, [-0.05, (-0.05 + 0.2) / 2, 0.3, (0.3 + 0.8) / 2, 0.8])


@given(st.lists(st.integers(0, 10), min_size=1, max_size=60), st.integers(0, 10_000))
def test_percentile_goes_by_the_last_of_equal_values_and_from_there_to_the_first_of_the_next(
    simulated: list[int], seed: int
) -> None:
    true = np.sort(np.random.default_rng(seed).normal(size=len(simulated)))
    xs = np.sort(np.asarray(simulated, float))

    def brute(value: float) -> float:
        if value < xs[0]:
            return float(true[0])
        last = max(place for place, x in enumerate(xs) if x <= value)
        if xs[last] == value or last == len(xs) - 1:
            return float(true[last])
        share = (value - xs[last]) / (xs[last + 1] - xs[last])
        return float((1 - share) * true[last] + share * true[last + 1])

    asked = np.arange(-1, 12, 0.25)
    found = fit_calibration("percentile", true, np.asarray(simulated, float))(asked)
    np.testing.assert_allclose(found, [brute(value) for value in asked], atol=1e-12)


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
def test_without_anything_to_fit_on_values_stay_as_they_are(method: str) -> None:
    np.testing.assert_array_equal(fit_calibration(method, np.zeros(0), np.zeros(0))(EXPECTED), EXPECTED)


def test_scores_are_those_of_the_formulas() -> None:
    t, e = np.array([1.0, -2.0, 3.0]), np.array([1.0, 0.0, 2.0])
    assert r_squared(t, e) == pytest.approx(1 - (0 + 4 + 1) / (1 + 4 + 9))
    assert absolute_deviation(t, e) == pytest.approx(1 - (0 + 2 + 1) / (1 + 2 + 3))
    assert r_squared(t, t) == absolute_deviation(t, t) == 1


def test_all_zero_is_undefined() -> None:
    assert np.isnan(r_squared(np.zeros(3), np.ones(3)))
    assert np.isnan(absolute_deviation(np.zeros(0), np.zeros(0)))
