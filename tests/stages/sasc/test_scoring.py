"""The score, its interval, and what functions without a concept score."""

import numpy as np
import pytest

from stages.sasc.scoring import choose, interval, null_scores, p_value, sasc_score


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


def test_each_random_function_chooses_for_itself_as_the_unit_does() -> None:
    rng = np.random.default_rng(0)
    halves = [[(rng.normal(size=(6, 40)), rng.normal(size=(5, 40))) for _ in range(3)] for _ in range(2)]
    sigma = rng.uniform(0.5, 2, 40)
    twin = []
    for number in range(40):
        select, report = (
            [sasc_score(pro[:, number], con[:, number], sigma[number]) for pro, con in half] for half in halves
        )
        twin.append(report[choose(select)])
    assert np.allclose(null_scores(halves[0], halves[1], sigma), twin)


def test_p_values_of_random_functions_among_themselves_are_uniform() -> None:
    """A unit that is a random function itself is below 0.05 in one of twenty cases, however many candidates it chose from."""
    rng = np.random.default_rng(0)
    directions, texts = rng.normal(size=(16, 2000)), rng.normal(size=(2, 5, 2, 8, 16))
    select, report = ([(pro @ directions, con @ directions) for pro, con in half] for half in texts)
    scores = null_scores(select, report, np.ones(2000))
    found = [p_value(score, scores[1000:]) for score in scores[:1000]]
    assert abs(np.mean(np.asarray(found) < 0.05) - 0.05) < 0.02
    assert abs(np.mean(found) - 0.5) < 0.05


def test_a_p_value_counts_functions_that_score_at_least_as_much() -> None:
    nulls = np.array([0.0, 1.0, 2.0, np.nan])
    assert p_value(1.0, nulls) == 3 / 4
    assert p_value(9.0, nulls) == 1 / 4
    assert np.isnan(p_value(np.nan, nulls))
