"""The parts of the record stage: sequences, tokens, moments, quantiles."""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evidence import SPLITS, split_of
from stages.record import unit_statistics as moments
from stages.record.recorded_batch import count_tokens, cover_tokens
from stages.record.sequences import in_histogram, padded_batches, pool_ids, random_ids, sequence_shards, uniform_ids
from stages.record.unit_statistics import BINS, INNER_EDGES, bin_edges, highest, join_zero_bins, quantiles, trimmed
from stages.settings import PerSplit, Record
from tests.tiers import examples


def test_random_sequences_are_the_first_of_each_split() -> None:
    config = Record(random=PerSplit(explain=3, select=1, report=2))
    assert random_ids(config).tolist() == [0, 1, 2, 3, 4, 7]
    assert [split_of(seq_id) for seq_id in (0, 2, 4)] == ["explain"] * 3


def test_batches_and_shards_lie_on_a_grid_of_numbers_some_of_which_are_missing() -> None:
    seq_ids = np.asarray([0, 1, 2, 3, 4, 6, 8, 10, 20, 22])
    sequences = [(int(seq_id), [7] * 4) for seq_id in seq_ids]
    whole = [batch.seq_ids.tolist() for batch in padded_batches(sequences, 4)]
    assert whole == [[0, 1, 2, 3], [4, 6], [8, 10], [20, 22]]
    ranges = [(shard.key["start"], shard.key["stop"]) for shard in sequence_shards(seq_ids, 8)]
    assert ranges == [(0, 8), (8, 16), (16, 23)]
    parts = [[one for one in sequences if start <= one[0] < stop] for start, stop in ranges]
    assert [batch.seq_ids.tolist() for part in parts for batch in padded_batches(part, 4)] == whole
    assert [shard.key["start"] for shard in sequence_shards(seq_ids, 4)] == [0, 4, 8, 20]
    assert not sequence_shards(seq_ids[:0], 4)


def test_the_pool_leaves_the_random_sequences_out() -> None:
    config = Record(random=PerSplit(explain=3, select=1, report=2), pool=10)
    assert pool_ids(config).tolist() == [5, 6, 8, 9]
    assert uniform_ids(config).tolist() == list(range(10))


def test_no_pool_is_kept_when_no_band_wants_a_sequence() -> None:
    none = PerSplit(explain=0, select=0, report=0)
    assert not pool_ids(Record(per_band=none, pool=50)).size


def test_tokens_are_counted_in_the_explain_split_after_the_skipped_positions() -> None:
    sequences = [[9, 5, 5, 7], [5, 5, 5], [5, 7], [7, 7, 7]]
    ids, occurrences = count_tokens(padded_batches(enumerate(sequences), 3), Record(skip_positions=1))
    assert dict(zip(ids.tolist(), occurrences.tolist(), strict=True)) == {5: 2, 7: 2}


def test_counts_do_not_depend_on_how_the_corpus_is_read() -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 30, rng.integers(2, 9)).tolist() for _ in range(40)]
    whole, parts = (count_tokens(padded_batches(enumerate(sequences), size), Record()) for size in (40, 7))
    assert [array.tolist() for array in whole] == [array.tolist() for array in parts]


def test_the_commonest_tokens_are_covered_when_memory_is_short() -> None:
    ids, occurrences = np.asarray([2, 4, 6, 8]), np.asarray([5, 9, 5, 1])
    plenty = cover_tokens(ids, occurrences, 1, Record())
    assert (plenty.token_ids.tolist(), plenty.min_count) == ([2, 4, 6, 8], 1)
    short = cover_tokens(ids, occurrences, 2**20 // 8 // 2, Record(token_memory_mb=1))
    assert (short.token_ids.tolist(), short.min_count) == ([-1, 4], 6)
    assert short.rows(np.asarray([[4, 2], [9, 4]])).tolist() == [[1, 0], [0, 1]]
    assert cover_tokens(ids, occurrences, 2**20, Record(token_memory_mb=1)).token_ids.tolist() == [-1]


def test_a_token_outside_the_table_has_no_row() -> None:
    table = cover_tokens(np.asarray([2, 4]), np.asarray([5, 9]), 1, Record())
    assert table.rows(np.asarray([[4, 3], [2, 99]])).tolist() == [[1, -1], [0, -1]]


floats = st.floats(-1e5, 1e5, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)
"""Cubes from 1e-9 to 1e15: the 106 bits of a pair hold their sums."""


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(floats, min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_a_sum_of_pairs_is_exact_to_the_last_bit_in_any_order(values: list[float], seed: int) -> None:
    terms = [value**3 for value in values]
    order = np.random.default_rng(seed).permutation(len(terms))
    total = np.zeros((2, 1))
    for place in order:
        total = moments.add(total, np.asarray([[terms[place]], [0.0]]))
    assert total[0, 0] == math.fsum(terms)


@settings(max_examples=examples(100), deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.integers(1, 10**9))
def test_products_and_quotients_of_pairs_carry_twice_the_precision(a: float, b: float, n: int) -> None:
    pair = np.asarray([[a], [a * 2.0**-60]])
    other = np.asarray([[b], [0.0]])
    exact = (Fraction(a) + Fraction(a * 2.0**-60)) * Fraction(b) / n
    found = moments.divide(moments.multiply(pair, other), np.asarray([float(n)]))
    error = abs(Fraction(found[0, 0]) + Fraction(found[1, 0]) - exact)
    assert error <= abs(exact) * Fraction(2) ** -98 + Fraction(1, 10**290)


def test_moments_are_right_where_the_mean_dwarfs_the_spread() -> None:
    values = (1000 + np.random.default_rng(0).standard_normal(4000)).astype(np.float32).astype(np.float64)
    powers = [[[math.fsum((values**power).tolist())], [0.0]] for power in (1, 2, 3, 4)]
    mean, variance, skewness, kurtosis = moments.moments(np.asarray([4000]), np.asarray(powers))
    centred = values - values.mean()
    np.testing.assert_allclose([mean[0], variance[0]], [values.mean(), values.var()], rtol=1e-8)
    np.testing.assert_allclose(kurtosis[0], (centred**4).mean() / values.var() ** 2, rtol=1e-3)
    np.testing.assert_allclose(skewness[0], (centred**3).mean() / values.var() ** 1.5, atol=1e-4)


def test_skewness_and_kurtosis_of_a_constant_are_undefined() -> None:
    powers = np.asarray([[[5 * 0.1**power], [0.0]] for power in (1, 2, 3, 4)])
    _, variance, skewness, kurtosis = moments.moments(np.asarray([5]), powers)
    assert variance[0] == pytest.approx(0, abs=1e-17)
    assert np.isnan([skewness[0], kurtosis[0]]).all()


def counts_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Histogram of one unit by numpy; exact for values that lie on no negative edge."""
    return np.bincount(np.searchsorted(INNER_EDGES, values, side="right"), minlength=BINS - 1)[None]


@pytest.mark.parametrize(("shift", "error"), [(-50.0, 0.25), (0.0, 0.03), (3.0, 0.1)])
def test_quantiles_are_off_by_a_bin_at_most_and_by_little_around_zero(shift: float, error: float) -> None:
    values = (np.random.default_rng(1).standard_t(3, 20_000) + shift).astype(np.float32)
    levels = [0.001, 0.1, 0.5, 0.9, 0.99, 0.999]
    found = quantiles(counts_of(values), values.min(keepdims=True), values.max(keepdims=True), levels)[0]
    for level, boundary in zip(levels, found, strict=True):
        true = np.quantile(values, level)
        assert abs(boundary - true) <= error * abs(true) + 0.01


def test_quantiles_of_a_unit_that_is_mostly_zero_are_zero() -> None:
    values = np.asarray([0.0] * 90 + [2.0] * 10, np.float32)
    found = quantiles(counts_of(values), values.min(keepdims=True), values.max(keepdims=True), [0.5, 0.95])[0]
    assert found[0] == 0
    assert found[1] == 2.0


def test_quantiles_stay_within_the_range_of_the_unit() -> None:
    values = np.asarray([5000.0, 70000.0], np.float32)
    found = quantiles(counts_of(values), values.min(keepdims=True), values.max(keepdims=True), [0.01, 0.5, 0.99])[0]
    assert (np.diff(found) > 0).all()
    assert found.min() >= 5000
    assert found.max() <= 70000


def test_histograms_are_taken_over_an_eighth_of_each_split_beyond_the_first_sequences() -> None:
    seq_ids = np.arange(256 * 40)
    binned = in_histogram(seq_ids)
    assert binned[:128].all()
    for split in SPLITS:
        of_split = np.asarray([split_of(seq_id) == split for seq_id in seq_ids.tolist()])
        for start in range(256, len(seq_ids), 256):
            block = slice(start, start + 256)
            assert binned[block][of_split[block]].mean() == 1 / 8


def test_a_histogram_is_cut_to_the_bins_in_use() -> None:
    counts = np.zeros((1, BINS), np.int64)
    counts[0, [BINS // 2 - 1, BINS // 2, BINS // 2 + 1, BINS - 1]] = [1, 2, 3, 4]
    low, high = bin_edges(np.zeros(1, np.float32), np.full(1, 3000, np.float32))
    edges, found = trimmed(join_zero_bins(counts)[0], low[0], high[0])
    assert (found[:2], found[-1], sum(found)) == ([3, 3], 4, 10)
    assert (edges[:2], edges[-2:]) == ([-(2.0**-21), 2.0**-21], [1536.0, 3000.0])


def test_the_highest_values_of_each_row_come_by_value_then_by_place() -> None:
    values = np.asarray([[1.0, 3.0, np.nan, 3.0, 2.0, 2.0], [np.nan] * 5 + [-1.0]])
    rows, columns = highest(values, 3)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (0, 3), (0, 4), (1, 5)]
    assert not len(highest(values, 0)[0])
