"""The strongest sequences in both polarities, each neighbourhood once, equal brute force on any part of the corpus."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Record
from pipeline.evidence import split_of
from stages.record.neighbourhood import neighbourhood_keys
from stages.record.recorder import Backend
from stages.record.selection import counted_positions, polarities
from tests.stages.record.twin import SMALL, Corpus, Unit, make_corpus, scan_arrays

BACKENDS: list[Backend] = ["numba", "torch"]
MODULE = "layers.1.mlp"


def partial_rows(corpus: Corpus, config: Record, shard: int, **how: Any) -> list[dict[str, Any]]:
    """The rows of partial exemplars of all shards."""
    starts = range(0, len(corpus.token_ids), shard)
    parts = [scan_arrays(corpus, start, start + shard, config, **how)["partial_exemplars"] for start in starts]
    return [row for part in parts for row in part.to_pylist()]


def best_of(rows: list[dict[str, Any]], unit: Unit, polarity: str) -> dict[str, list[int]]:
    """The seq_ids by split that are left when each key counts once and the rest is cut to `record.top`."""
    sign = 1 if polarity == "+" else -1
    found: dict[str, list[int]] = {"explain": [], "select": [], "report": []}
    peaks = unit.peaks(polarity)
    chosen = [r for r in rows if (r["module"], r["index"], r["polarity"]) == (unit.module, unit.index, polarity)]
    keys: set[tuple[str, int]] = set()
    for row in sorted(chosen, key=lambda row: (-sign * peaks[row["seq_id"]][1], row["seq_id"])):
        split = split_of(row["seq_id"])
        np.testing.assert_array_equal(np.asarray(row["activations"], np.float32), unit.shown(row["seq_id"]))
        if (split, row["key"]) in keys and unit.config.distinct:
            continue
        keys.add((split, row["key"]))
        if len(found[split]) < getattr(unit.config.top, split):
            found[split].append(row["seq_id"])
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "tied", "dead"])
@pytest.mark.parametrize("distinct", [None, 0, 1], ids=["all", "peak alone", "a token around it"])
def test_both_polarities_equal_brute_force_from_any_cut(kind: str, distinct: int | None, backend: Backend) -> None:
    changed = {"distinct": distinct is not None, "distinct_context": distinct or 0}
    config = SMALL.model_copy(update=changed)
    corpus = replace(make_corpus(kind, sequences=71), special_ids=frozenset({3, 8}))
    for shard in (1000, 12):
        rows = partial_rows(corpus, config, shard, backend=backend)
        for index in range(7):
            unit = Unit(corpus, MODULE, index, config)
            for polarity in ("+", "-"):
                assert best_of(rows, unit, polarity) == unit.top(polarity)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_part_keeps_no_neighbourhood_twice(backend: Backend) -> None:
    config = SMALL.model_copy(update={"distinct_context": 0})
    rows = partial_rows(make_corpus("random", sequences=90), config, 1000, backend=backend)
    kept = [(r["module"], r["index"], r["polarity"], split_of(r["seq_id"]), r["key"]) for r in rows if r["polarity"]]
    assert len(kept) == len(set(kept)) == 10 * 2 * 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_units_that_are_never_negative_have_one_polarity(backend: Backend) -> None:
    corpus = make_corpus("rare")
    rows = partial_rows(corpus, SMALL, 1000, backend=backend, signed=False)
    assert {row["polarity"] for row in rows} == {"+", ""}
    config = SMALL.model_copy(update={"polarities": ["-"]})
    assert {row["polarity"] for row in partial_rows(corpus, config, 1000, backend=backend)} == {"-", ""}
    assert polarities(Record(), True) == ("+", "-")
    assert polarities(config, False) == ()


@pytest.mark.parametrize("threads", [2, 3])
def test_the_rows_are_the_same_for_any_number_of_threads(threads: int) -> None:
    corpus = make_corpus("random", sequences=50, widths=(70, 300))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scan_arrays(corpus, 0, 50, SMALL)
        torch.set_num_threads(threads)
        together = scan_arrays(corpus, 0, 50, SMALL)
    finally:
        torch.set_num_threads(before)
    for name, table in alone.items():
        for column in table.column_names:
            if column != "activations":
                assert together[name][column].equals(table[column]), (name, column)
    both = [table["partial_exemplars"]["activations"].combine_chunks().flatten() for table in (alone, together)]
    np.testing.assert_array_equal(both[0].to_numpy(), both[1].to_numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_special_tokens_count_nowhere_unless_the_setting_is_off(backend: Backend) -> None:
    corpus = replace(make_corpus("random"), special_ids=frozenset({1, 2}))
    on, off = (
        scan_arrays(corpus, 0, 61, SMALL.model_copy(update={"skip_special": skip}), backend) for skip in (True, False)
    )
    unit = Unit(corpus, MODULE, 0, SMALL)
    assert set(on["partial_units"]["n_tokens"].to_pylist()) == {len(unit.counted())}
    assert not {1, 2} & set(on["partial_tokens"]["token_id"].to_pylist())
    assert {1, 2} <= set(off["partial_tokens"]["token_id"].to_pylist())
    assert off["partial_units"]["n_tokens"][0].as_py() == sum(len(ids) - 1 for ids in corpus.token_ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_without_a_position_that_counts_is_no_exemplar(backend: Backend) -> None:
    corpus = make_corpus("random", sequences=20)
    corpus.token_ids[6] = [14] * len(corpus.token_ids[6])
    corpus = replace(corpus, special_ids=frozenset({14}))
    rows = partial_rows(corpus, SMALL, 1000, backend=backend)
    assert 6 not in {row["seq_id"] for row in rows if row["polarity"]}
    uniform = [row["activations"] for row in rows if row["seq_id"] == 6]
    assert uniform
    assert all(np.isnan(values).all() for values in uniform)


def test_equal_neighbourhoods_have_equal_keys_whatever_stands_elsewhere() -> None:
    ids = np.asarray([[5, 1, 2, 3, 9, 9], [7, 8, 1, 2, 3, 9], [1, 2, 3, 0, 0, 0]])
    keys = neighbourhood_keys(ids, np.asarray([6, 6, 3]), 1)
    assert keys[0, 2] == keys[1, 3] == keys[2, 1]
    assert len(np.unique(keys[:2])) == 11 - 1
    assert keys[2, 2] != keys[0, 3]
    assert (
        neighbourhood_keys(ids, np.asarray([6, 6, 3]), 0)[0, 1]
        == neighbourhood_keys(ids, np.asarray([6, 6, 3]), 0)[2, 0]
    )


def test_what_counts_is_real_not_skipped_and_not_special() -> None:
    ids, lengths = np.asarray([[4, 5, 6, 5], [5, 6, 7, 0]]), np.asarray([4, 3])
    config = Record(skip_positions=1)
    assert counted_positions(ids, lengths, config, {5}).tolist() == [
        [False, False, True, False],
        [False, True, True, False],
    ]
    off = config.model_copy(update={"skip_special": False})
    assert counted_positions(ids, lengths, off, {5}).sum() == 5
