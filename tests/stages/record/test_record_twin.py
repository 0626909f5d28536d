"""Recording agrees with brute force, however the corpus is cut into shards and whatever computes it."""

from itertools import pairwise

import numpy as np
import pytest

from stages.settings import PerSplit, Record
from tests.stages.record.twin import SMALL, Corpus, make_corpus, record, scan_arrays, token_table
from tests.stages.record.unit_twin import Unit
from tests.stages.record.ways import BACKENDS, SLOW, Way

MOMENTS = ("mean", "variance", "skewness", "kurtosis")


def check_against_twin(corpus: Corpus, config: Record, backend: Way = "numba") -> None:
    found = record(corpus, config, backend=backend)
    keys = [(module, index) for module, width in corpus.widths.items() for index in range(width)]
    assert [(row["module"], row["index"]) for row in found["units"]] == keys
    for row in found["units"]:
        unit = Unit(corpus, row["module"], row["index"], config)
        values = unit.counted()
        assert row["n_tokens"] == len(values)
        assert (row["min"], row["max"]) == (values.min(), values.max())
        assert row["density"] == np.mean(values > config.density_threshold)
        expected = np.asarray(unit.moments())
        recorded = [row[name] for name in MOMENTS]
        np.testing.assert_allclose(np.asarray(recorded, float), expected, rtol=1e-10, atol=1e-12)
        edges, counts = row["histogram_edges"], row["histogram_counts"]
        bins = {pair: n for pair, n in zip(pairwise(edges), counts, strict=True) if n}
        assert bins == unit.histogram()
        assert row["top_tokens"] == unit.top_tokens(row["top_tokens_min_count"])
        assert row["bottom_tokens"] == unit.top_tokens(row["top_tokens_min_count"], -1)
        means = next(r for r in found["token_means"] if (r["module"], r["index"]) == (row["module"], row["index"]))
        rows = list(zip(means["token_ids"], means["counts"], means["means"], strict=True))
        least = token_table(corpus, config).min_count
        assert rows == [(token, n, np.float32(mean)) for token, n, mean in unit.token_means(least)]
        exemplars = [r for r in found["exemplars"] if (r["module"], r["index"]) == (row["module"], row["index"])]
        kept = [(r["polarity"], r["band"], r["split"], r["rank"], r["seq_id"]) for r in exemplars]
        assert kept == unit.exemplars(row)
        peaks = {polarity: unit.peaks(polarity) for polarity in "+-"}
        for exemplar in exemplars:
            peak = peaks[exemplar["polarity"]][exemplar["seq_id"]]
            assert (exemplar["peak"], exemplar["max_activation"]) == peak
            shown = np.asarray(exemplar["activations"], np.float32)
            np.testing.assert_array_equal(shown, unit.shown(exemplar["seq_id"]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "tied", "rare", "dead"])
def test_every_statistic_and_exemplar_equals_brute_force(kind: str, backend: Way) -> None:
    check_against_twin(make_corpus(kind), SMALL, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [pytest.param("random", marks=SLOW), "tied"])
def test_histograms_of_part_of_the_sequences_equal_brute_force(kind: str, backend: Way) -> None:
    corpus = make_corpus(kind, sequences=550, widths=(3,))
    config = SMALL.model_copy(update={"batch_size": 32, "shard_sequences": 32})
    check_against_twin(corpus, config, backend)
    whole = record(corpus, config, backend=backend)
    counted = [sum(row["histogram_counts"]) for row in whole["units"]]
    assert counted == [sum(len(corpus.token_ids[s]) - 1 for s in [*range(128), *range(256, 288), *range(512, 544)])] * 3
    assert record(corpus, config, shard=96, backend=backend) == whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_settings_equal_brute_force_too(backend: Way) -> None:
    config = SMALL.model_copy(
        update={
            "top": PerSplit(explain=0, select=5, report=2),
            "per_band": PerSplit(explain=1, select=1, report=1),
            "quantiles": [0.25, 0.75],
            "density_threshold": 0.5,
            "skip_positions": 2,
            "batch_size": 5,
            "pool": 40,
        }
    )
    check_against_twin(make_corpus("tied", seed=1), config, backend)


def test_no_skipped_positions_equal_brute_force() -> None:
    check_against_twin(make_corpus("random", seed=2), SMALL.model_copy(update={"skip_positions": 0}))


def test_modules_wider_than_a_block_equal_brute_force() -> None:
    check_against_twin(make_corpus("random", sequences=30, widths=(2, 130)), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_that_memory_does_not_hold_have_one_mean_together(backend: Way) -> None:
    corpus = make_corpus("random", sequences=60, widths=(13_000,))
    assert len({token for ids in corpus.token_ids for token in ids}) > 2**20 // 8 // 13_000
    config = SMALL.model_copy(update={"token_memory_mb": 1})
    table = token_table(corpus, config)
    assert table.token_ids[0] == -1
    found = record(corpus, config, backend=backend, units=13_000)["token_means"][7]
    unit = Unit(corpus, found["module"], 7, config)
    rows = list(zip(found["token_ids"], found["counts"], found["means"], strict=True))
    assert rows == [(token, n, np.float32(mean)) for token, n, mean in unit.token_means(table.min_count)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sequences", [1, 2, 5])
def test_a_corpus_smaller_than_a_batch_is_recorded(sequences: int, backend: Way) -> None:
    config = SMALL.model_copy(update={"min_token_count": 1, "batch_size": 8})
    check_against_twin(make_corpus("random", sequences=sequences), config, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [pytest.param("random", marks=SLOW), "tied", pytest.param("rare", marks=SLOW)])
def test_rows_are_identical_however_the_corpus_is_cut_and_merged(kind: str, backend: Way) -> None:
    corpus = make_corpus(kind, sequences=101, widths=(70,))
    whole = record(corpus, backend=backend)
    assert whole["units"][0]["n_tokens"] > 500
    for shard in (4, 12, 52):
        for order in (1, -1):
            assert record(corpus, shard=shard, order=order, units=33, backend=backend) == whole


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [pytest.param("random", marks=SLOW), "tied", pytest.param("rare", marks=SLOW)])
def test_rows_are_identical_whatever_the_batches(kind: str, backend: Way) -> None:
    corpus = make_corpus(kind, sequences=101, widths=(20,))
    rows = [
        record(corpus, SMALL.model_copy(update={"batch_size": size, "shard_sequences": size}), backend=backend)
        for size in (1, 4, 7, 101)
    ]
    if backend == "triton":  # adds up to 32 sequences up before it goes on exactly
        for unit in (unit for found in rows for unit in found["units"]):
            unit.update({name: pytest.approx(unit[name], rel=1e-12) for name in MOMENTS})
    assert rows[0] == rows[1] == rows[2] == rows[3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_token_sums_are_equal_to_the_last_bit_in_any_order(backend: Way) -> None:
    corpus = make_corpus("random", sequences=80, widths=(30,))
    for seq_id, values in enumerate(corpus.activations["layers.0.mlp"]):
        values *= np.float32(10.0 ** (seq_id % 11 - 8))

    def sums(shard: int, step: int) -> dict[int, list[float]]:
        found: dict[int, list[float]] = {}
        for start in list(range(0, 80, shard))[::step]:
            for row in scan_arrays(corpus, start, start + shard, SMALL, backend)["partial_tokens"].to_pylist():
                before = found.get(row["token_id"], [0.0] * 30)
                found[row["token_id"]] = [a + b for a, b in zip(before, row["sums"], strict=True)]
        return found

    assert sums(80, 1) == sums(4, 1) == sums(12, -1)


def test_numba_and_torch_give_the_same_rows() -> None:
    corpus = make_corpus("tied", sequences=41)
    assert record(corpus, backend="torch") == record(corpus, backend="numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_activations_beyond_the_range_of_float16_survive(backend: Way) -> None:
    corpus = make_corpus("random", sequences=20)
    for values in corpus.activations["layers.0.mlp"]:
        values[:, 1] *= 1e5
    check_against_twin(corpus, SMALL, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nonfinite_activations_are_counted_and_poison_nothing_else(backend: Way) -> None:
    clean = make_corpus("random", sequences=40)
    dirty = make_corpus("random", sequences=40)
    values = dirty.activations["layers.1.mlp"]
    values[3][1:3, 2] = [np.nan, np.inf]
    values[8][2, 2] = -np.inf
    values[9][:, 4] = np.nan
    before, after = record(clean, backend=backend), record(dirty, backend=backend)
    touched = {("layers.1.mlp", 2): 3, ("layers.1.mlp", 4): len(values[9]) - 1}
    for name in ("units", "exemplars"):
        for rows in (before[name], after[name]):
            rows[:] = [{**row, "key": (row["module"], row["index"])} for row in rows]
        untouched = [[row for row in rows if row["key"] not in touched] for rows in (before[name], after[name])]
        assert untouched[0] == untouched[1]
    for row in after["units"]:
        assert row["n_nonfinite"] == touched.get(row["key"], 0)
        if row["key"] in touched:
            unit = Unit(dirty, row["module"], row["index"], SMALL)
            assert row["n_tokens"] == len(unit.counted())
            np.testing.assert_allclose(row["mean"], unit.moments()[0], rtol=1e-12)
            assert sum(row["histogram_counts"]) == row["n_tokens"]
            kept = [
                (r["polarity"], r["band"], r["split"], r["rank"], r["seq_id"])
                for r in after["exemplars"]
                if r["key"] == row["key"]
            ]
            assert kept == unit.exemplars(row)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_unit_that_is_never_finite_has_a_row_of_nulls(backend: Way) -> None:
    corpus = make_corpus("random", sequences=12)
    for values in corpus.activations["layers.0.mlp"]:
        values[:, 0] = np.nan
    found = record(corpus, backend=backend)
    row = found["units"][0]
    assert (row["n_tokens"], row["mean"], row["max"], row["density"], row["quantile_boundaries"]) == (0,) + (None,) * 4
    assert row["top_tokens"] == []
    assert not [r for r in found["exemplars"] if (r["module"], r["index"]) == ("layers.0.mlp", 0)]


def test_a_dead_unit_has_a_row_and_its_exemplars_are_the_first_sequences() -> None:
    found = record(make_corpus("dead"))
    row = found["units"][0]
    assert (row["mean"], row["variance"], row["skewness"], row["kurtosis"], row["density"]) == (0, 0, None, None, 0)
    assert row["quantile_boundaries"] == [0.0] * 4
    top = [
        r["seq_id"] for r in found["exemplars"] if r["index"] == 0 and r["band"] == "top" and r["split"] == "explain"
    ]
    assert top[:3] == [0, 2, 4]
