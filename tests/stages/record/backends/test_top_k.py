"""The strongest sequences in both polarities, each neighbourhood once, equal brute force on any part of the corpus."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.subjects.activations import ModuleUnits
from stages.evidence import SPLITS, split_of
from stages.record.backends.contract import UnitSums
from stages.record.record_sizes import recorder_bytes
from stages.record.recorded_batch import counted_positions, neighbourhood_keys
from stages.record.scan import Recorder
from stages.record.sequences import polarities
from stages.settings import Record
from tests.stages.record.test_record_twin import check_against_twin
from tests.stages.record.twin import SMALL, Corpus, accumulate, batches, make_corpus, token_table
from tests.stages.record.unit_twin import Unit
from tests.stages.record.ways import BACKENDS, Way

Row = tuple[float, int, int, npt.NDArray[np.float32]]
MODULE = "layers.1.mlp"


def top_rows(corpus: Corpus, config: Record, shard: int, polarity: str, **how: Any) -> list[list[Row]]:
    """What each shard keeps of each unit: (value, seq_id, key, activations)."""
    found: list[list[Row]] = [[] for _ in range(corpus.widths[MODULE])]
    total = len(corpus.token_ids)
    for start in range(0, total, shard):
        part = range(start, min(start + shard, total))
        top = accumulate(corpus, MODULE, part, config, **how).sums().top[polarity]
        for unit, slot in zip(*np.nonzero(top.values > -np.inf), strict=True):
            seq_id = int(top.seq_ids[unit, slot])
            shown = top.vectors[unit : unit + 1][0, slot, : len(corpus.token_ids[seq_id])]
            found[unit].append((float(top.values[unit, slot]), seq_id, int(top.keys[unit, slot]), shown))
    return found


def best_of(rows: list[Row], unit: Unit, polarity: str) -> dict[str, list[int]]:
    """The seq_ids by split that are left when each key counts once and the rest is cut to `record.top`."""
    sign = 1 if polarity == "+" else -1
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    peaks, keys = unit.peaks(polarity), set()
    for value, seq_id, key, shown in sorted(rows, key=lambda row: (-row[0], row[1])):
        assert value == sign * peaks[seq_id][1]
        np.testing.assert_array_equal(shown, unit.shown(seq_id))
        split = split_of(seq_id)
        if unit.config.distinct and (split, key) in keys:
            continue
        keys.add((split, key))
        if len(found[split]) < getattr(unit.config.top, split):
            found[split].append(seq_id)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "tied", "dead"])
@pytest.mark.parametrize("distinct", [None, 0, 1], ids=["all", "peak alone", "a token around it"])
def test_both_polarities_equal_brute_force_from_any_cut(kind: str, distinct: int | None, backend: Way) -> None:
    changed = {"distinct": distinct is not None, "distinct_context": distinct or 0}
    config = SMALL.model_copy(update=changed)
    corpus = replace(make_corpus(kind, sequences=71), special_ids=frozenset({3, 8}))
    for shard in (1000, 12):
        for polarity in ("+", "-"):
            for index, rows in enumerate(top_rows(corpus, config, shard, polarity, backend=backend)):
                unit = Unit(corpus, MODULE, index, config)
                assert best_of(rows, unit, polarity) == unit.top(polarity)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_part_keeps_no_neighbourhood_twice(backend: Way) -> None:
    config = SMALL.model_copy(update={"distinct_context": 0})
    for rows in top_rows(make_corpus("random", sequences=90), config, 1000, "-", backend=backend):
        assert len({(split_of(seq_id), key) for _, seq_id, key, _ in rows}) == len(rows) == 3 + 2 + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_units_that_are_never_negative_have_one_polarity(backend: Way) -> None:
    corpus = make_corpus("rare")
    assert set(accumulate(corpus, MODULE, range(9), SMALL, backend, signed=False).sums().top) == {"+"}
    config = SMALL.model_copy(update={"polarities": ["-"]})
    assert set(accumulate(corpus, MODULE, range(9), config, backend).sums().top) == {"-"}
    assert polarities(Record(), True) == ("+", "-")
    assert polarities(config, False) == ()


def same_sums(one: UnitSums, other: UnitSums) -> None:
    """Power sums are pairs that may be split up in two ways, but stand for the same float64."""
    np.testing.assert_array_equal(one.power_sums.sum(axis=1), other.power_sums.sum(axis=1))
    for name in ("n_nonfinite", "minimum", "maximum", "above", "histogram", "token_sums"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_state_is_the_same_for_any_number_of_threads(threads: int) -> None:
    corpus = make_corpus("random", sequences=50, widths=(2, 300))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = accumulate(corpus, MODULE, range(50), SMALL).sums()
        torch.set_num_threads(threads)
        together = accumulate(corpus, MODULE, range(50), SMALL).sums()
    finally:
        torch.set_num_threads(before)
    same_sums(alone, together)
    for polarity, top in alone.top.items():
        for name in ("values", "seq_ids", "keys"):
            np.testing.assert_array_equal(getattr(top, name), getattr(together.top[polarity], name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_special_tokens_count_nowhere_unless_the_setting_is_off(backend: Way) -> None:
    corpus = replace(make_corpus("random"), special_ids=frozenset({1, 2}))
    check_against_twin(corpus, SMALL, backend)
    unit = Unit(corpus, MODULE, 0, SMALL)
    assert accumulate(corpus, MODULE, range(61), SMALL, backend).sums().n_tokens == len(unit.counted())
    assert not {1, 2} & set(token_table(corpus, SMALL).token_ids.tolist())
    off = SMALL.model_copy(update={"skip_special": False})
    assert {1, 2} <= set(token_table(corpus, off).token_ids.tolist())
    everything = accumulate(corpus, MODULE, range(61), off, backend).sums().n_tokens
    assert everything == sum(len(ids) - 1 for ids in corpus.token_ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_without_a_position_that_counts_is_no_exemplar(backend: Way) -> None:
    corpus = make_corpus("random", sequences=20)
    corpus.token_ids[6] = [14] * len(corpus.token_ids[6])
    corpus = replace(corpus, special_ids=frozenset({14}))
    found = accumulate(corpus, MODULE, range(20), SMALL, backend)
    for top in found.sums().top.values():
        assert 6 not in top.seq_ids
    assert np.isnan(found.uniform()[6][2:5]).all()
    np.testing.assert_array_equal(found.uniform()[3][2:3][0], Unit(corpus, MODULE, 2, SMALL).shown(3))


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


def test_wide_modules_and_long_sequences_give_the_same_by_either_backend() -> None:
    corpus = make_corpus("tied", sequences=5, widths=(2, 1601), seq_len=150)
    numba, by_torch = (
        accumulate(corpus, MODULE, range(5), SMALL, "numba").sums(),
        accumulate(corpus, MODULE, range(5), SMALL, "torch").sums(),
    )
    assert numba.n_tokens == by_torch.n_tokens
    same_sums(numba, by_torch)
    for polarity, top in numba.top.items():
        values = np.sort(by_torch.top[polarity].values, axis=1)
        np.testing.assert_array_equal(np.sort(top.values, axis=1), values)


def test_a_recorder_takes_as_much_memory_as_stated() -> None:
    config = Record(pool=24)
    corpus = make_corpus("random", sequences=120, widths=(200, 200, 200), seq_len=32)
    tokens = token_table(corpus, config)
    accumulate(corpus, "layers.0.mlp", range(4), config)  # compiles
    tracemalloc.start()
    try:
        modules = {name: ModuleUnits(width) for name, width in corpus.widths.items()}
        recorder = Recorder(modules, config, tokens, 32, backend="numba")
        for batch, activations in batches(corpus, 0, 120, config):
            recorder.begin(batch)
            for module in modules:
                recorder.add(module, activations[module])
            del activations
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    stated = recorder_bytes(recorder.modules, config, len(tokens.token_ids), 32)
    assert taken == pytest.approx(stated, rel=0.1)
