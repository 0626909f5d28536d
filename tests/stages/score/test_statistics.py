"""Correlations from sums agree with scipy; intervals and p-values mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from stages.score.interval_kernels import CORRELATION, studentised
from stages.score.statistics import Floats, Ints, correlation_interval, permutation_p
from stages.score.sum_kernels import correlation_of
from tests.stages.score.coverage import covered, sequence_sums
from tests.tiers import examples


def sums_of(true: list[Floats], expected: list[Floats]) -> Floats:
    return sequence_sums(np.concatenate(true), np.concatenate(expected), np.array([len(t) for t in true]))


def with_error(sums: Floats, bounds: list[int]) -> tuple[float, float]:
    """Fisher's z of the correlation, and its standard error, of sequences in strata."""
    value, error, *_ = studentised(CORRELATION, sums, np.array(bounds), np.ones(len(bounds) - 1), 0, 0, 0.975)
    return value, error


def interval(sums: Floats, strata: Ints, seed: int = 9) -> tuple[float, float]:
    return correlation_interval(sums, strata, 200, 0.95, np.random.default_rng(seed))


def random_sequences(rng: np.random.Generator, count: int, noise: float = 1.0) -> tuple[list[Floats], list[Floats]]:
    true = [rng.normal(size=rng.integers(2, 64)) for _ in range(count)]
    return true, [t + noise * rng.normal(size=len(t)) for t in true]


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1e4), st.floats(-1e4, 1e4))
def test_correlation_over_concatenated_sequences_is_scipys(seed: int, scale: float, offset: float) -> None:
    true, expected = random_sequences(np.random.default_rng(seed), 5)
    true = [scale * t + offset for t in true]
    wanted = pearsonr(np.concatenate(true), np.concatenate(expected)).statistic
    assert correlation_of(*sums_of(true, expected).sum(axis=0)) == pytest.approx(wanted, abs=1e-6)


def test_correlations_within_sequences_are_scipys() -> None:
    true, expected = random_sequences(np.random.default_rng(1), 8)
    wanted = [pearsonr(t, e).statistic for t, e in zip(true, expected, strict=True)]
    found = [correlation_of(*sums) for sums in sums_of(true, expected)]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_tokens_left_out_do_not_count() -> None:
    true, expected = random_sequences(np.random.default_rng(2), 3)
    kept = pearsonr(np.concatenate([t[1:] for t in true]), np.concatenate([e[1:] for e in expected])).statistic
    for t in true:
        t[0] = np.nan
    assert correlation_of(*sums_of(true, expected).sum(axis=0)) == pytest.approx(kept)


@pytest.mark.parametrize("flat", ["true", "expected", "both"])
def test_no_variance_is_undefined_and_not_zero(flat: str) -> None:
    true, expected = random_sequences(np.random.default_rng(3), 3)
    if flat in ("true", "both"):
        true = [np.full(len(t), 0.1) for t in true]
    if flat in ("expected", "both"):
        expected = [np.full(len(e), 0.7) for e in expected]
    assert np.isnan(correlation_of(*sums_of(true, expected).sum(axis=0)))


def test_nothing_simulated_is_undefined() -> None:
    assert sequence_sums(np.zeros(0), np.zeros(0), np.zeros(0, np.int64)).shape == (0, 6)
    assert np.isnan(correlation_of(*np.zeros(6)))


def test_an_empty_sequence_between_others_has_empty_sums() -> None:
    rng = np.random.default_rng(4)
    true = [rng.normal(size=4), np.zeros(0), rng.normal(size=3)]
    sums = sums_of(true, [rng.normal(size=len(t)) for t in true])
    assert sums[:, 0].tolist() == [4, 0, 3]
    np.testing.assert_array_equal(sums[1], 0)


def test_the_interval_covers_the_population_value_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        true = [rng.normal(size=16) for _ in range(20)]
        expected = [t + rng.normal(size=16) for t in true]
        low, high = correlation_interval(sums_of(true, expected), np.zeros(20, dtype=np.int64), 300, 0.95, rng)
        covered += low <= np.sqrt(0.5) <= high
    assert 170 <= covered <= 200


@pytest.mark.slow
@pytest.mark.parametrize(("top", "random", "least"), [(5, 5, 0.89), (10, 10, 0.93), (10, 20, 0.93), (10, 30, 0.94)])
def test_intervals_cover_where_units_fire_in_bursts_and_explanations_know_some_of_them(
    top: int, random: int, least: float
) -> None:
    found = covered(2000, top, random)
    assert found.telling >= least
    assert found.all >= least - 0.04


def test_the_interval_resamples_sequences_and_not_tokens() -> None:
    """Tokens of a sequence that all say the same are one observation, however many they are."""
    rng = np.random.default_rng(6)
    pairs = [(rng.normal(), rng.normal()) for _ in range(10)]
    short, long = (sums_of([np.full(n, t) for t, _ in pairs], [np.full(n, e) for _, e in pairs]) for n in (1, 50))
    strata = np.zeros(10, dtype=np.int64)
    widths = []
    for sums in (short, long):
        low, high = correlation_interval(sums, strata, 2000, 0.95, np.random.default_rng(7))
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_the_interval_keeps_the_number_of_sequences_of_each_stratum() -> None:
    """Where the sequences of each stratum are the same, so is every resample: there is nothing to tell an error from."""
    true, expected = random_sequences(np.random.default_rng(8), 2)
    sums = sums_of(true, expected)[[0, 0, 1, 1, 1]]
    assert np.isnan(interval(sums, np.array([0, 0, 1, 1, 1]))).all()
    alone = interval(sums[1:3], np.array([0, 1]))
    assert np.isnan(alone).all(), "one sequence in each stratum"


def test_standard_errors_are_those_of_the_jackknife_where_there_are_many_sequences() -> None:
    rng = np.random.default_rng(3)
    true, expected = random_sequences(rng, 400)
    sums, strata = sums_of(true, expected), np.repeat([0, 1], 200)
    _, error = with_error(sums, [0, 200, 400])
    without = np.arctanh([correlation_of(*left) for left in sums.sum(axis=0) - sums])
    jackknife = sum(199 / 200 * ((without[strata == s] - without[strata == s].mean()) ** 2).sum() for s in (0, 1))
    assert error == pytest.approx(np.sqrt(jackknife), rel=0.02)


def test_resamples_in_which_next_to_nothing_is_left_do_not_blow_the_interval_up() -> None:
    """One sequence of ten carries all of the correlation: without it, errors are as good as 0."""
    rng = np.random.default_rng(5)
    true, expected = [rng.normal(0, 0.01, 30) for _ in range(10)], [np.zeros(30) for _ in range(10)]
    true[3][:6], expected[3][:6], expected[7][2] = 5, 9, 1
    sums, strata = sums_of(true, expected), np.zeros(10, np.int64)
    z, error = with_error(sums, [0, 10])
    low, high = correlation_interval(sums, strata, 500, 0.95, rng)
    ends = np.tanh(z + np.array([-4.303, 4.303]) * error)
    assert ends[0] - 1e-3 <= low <= np.tanh(z) <= high <= ends[1] + 1e-3


def test_a_perfect_correlation_is_its_own_interval() -> None:
    true, _ = random_sequences(np.random.default_rng(8), 6)
    strata = np.zeros(6, np.int64)
    found = correlation_interval(sums_of(true, [2 * t for t in true]), strata, 200, 0.95, np.random.default_rng(0))
    assert found == (1.0, 1.0)


def test_the_ends_are_a_correlation_and_lie_about_it() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        true, expected = random_sequences(rng, 8, noise=rng.uniform(0, 4))
        low, high = correlation_interval(sums_of(true, expected), np.repeat([0, 1], 4), 200, 0.95, rng)
        assert -1 <= low <= high <= 1


def test_one_sequence_has_no_interval() -> None:
    sums = sums_of([np.arange(5.0)], [np.arange(5.0)])
    assert np.isnan(correlation_interval(sums, np.zeros(1, dtype=np.int64), 100, 0.95, np.random.default_rng(0))).all()


def test_the_permutation_p_value_counts_the_value_itself() -> None:
    controls = np.array([0.1, 0.2, 0.3, np.nan])
    assert permutation_p(0.25, controls) == 2 / 4
    assert permutation_p(0.9, controls) == 1 / 4
    assert permutation_p(0.1, controls) == 1.0
    assert permutation_p(float(np.nextafter(0.2, 1)), controls) == 3 / 4, "equal but for the last bit"
    assert np.isnan(permutation_p(np.nan, controls))
    assert np.isnan(permutation_p(0.5, np.array([np.nan])))
