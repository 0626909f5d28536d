"""The score, its interval and its p-value."""

import numpy as np
import pytest

from stages.sasc.scoring import choose, interval, p_value, sasc_score


def test_the_score_is_the_difference_of_means_in_standard_deviations() -> None:
    assert sasc_score([3.0, 5.0], [1.0, 1.0, 1.0], 2.0) == 1.5


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf])
def test_there_is_no_score_without_a_spread_of_responses(sigma: float) -> None:
    assert np.isnan(sasc_score([3.0, 5.0], [1.0, 1.0], sigma))


def test_there_is_no_score_without_two_texts_of_each_kind() -> None:
    assert np.isnan(sasc_score([3.0], [1.0, 1.0], 1.0))
    assert np.isnan(sasc_score([3.0, np.nan], [1.0, 1.0], 1.0))


def test_the_best_is_chosen_and_never_one_without_a_score() -> None:
    assert choose([0.1, np.nan, 0.7, 0.7]) == 2
    assert choose([np.nan, -2.0]) == 1


def test_the_interval_is_that_of_plain_resampling() -> None:
    rng = np.random.default_rng(0)
    relevant, baseline = rng.normal(2, 1, 30), rng.normal(0, 1, 20)
    low, high = interval(relevant, baseline, 0.5, 4000, np.random.default_rng(1))
    plain = np.random.default_rng(2)
    twin = [(plain.choice(relevant, 30).mean() - plain.choice(baseline, 20).mean()) / 0.5 for _ in range(4000)]
    assert np.allclose([low, high], np.quantile(twin, [0.025, 0.975]), atol=0.06)
    assert low < sasc_score(relevant, baseline, 0.5) < high


def test_an_interval_is_the_same_for_the_same_seed_and_absent_without_a_score() -> None:
    first, again = (interval([1.0, 2.0], [0.0, 1.0], 1.0, 100, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert np.isnan(interval([1.0], [0.0, 1.0], 1.0, 100, np.random.default_rng(3))).all()


def test_a_p_value_counts_null_units_that_score_at_least_as_much() -> None:
    nulls = np.array([0.0, 1.0, 2.0, np.nan])
    assert p_value(1.0, nulls) == 3 / 4
    assert p_value(9.0, nulls) == 1 / 4
    assert np.isnan(p_value(np.nan, nulls))


def test_p_values_of_null_units_among_themselves_are_uniform() -> None:
    scores = np.random.default_rng(0).normal(size=(2000, 41))
    found = np.asarray([p_value(row[0], row[1:]) for row in scores])
    assert abs(np.mean(found < 0.05) - 2 / 41) < 0.015
    assert abs(found.mean() - 0.5) < 0.03
