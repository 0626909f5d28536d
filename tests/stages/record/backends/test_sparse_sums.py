"""Recording triples equals recording the same activations with their zeros, but that only what fires is kept as top."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.subjects.activations import ModuleUnits, SparseActivations
from stages.evidence import split_of
from stages.record.backends.contract import Accumulator, TopK
from stages.record.backends.numba.numba_sums import NumbaSums
from stages.record.backends.numba.sparse_sums import SparseSums
from stages.record.merge import merge
from stages.record.recorded_batch import make_batch
from stages.record.scan import Recorder
from stages.record.sequences import padded_batches
from stages.record.unit_statistics import join_zero_bins
from stages.settings import PerSplit, Record
from tests.stages.record.twin import (
    SEQ_LEN,
    SMALL,
    TEXTS,
    Corpus,
    make_corpus,
    rows_about,
    token_table,
    whole_tables,
)
from tests.stages.record.unit_twin import Unit

U = 9
MODULE = "layers.0.mlp"
SPECIAL = frozenset({3})
BROKEN = [np.nan, np.inf, -np.inf]


def sparse_corpus(kind: str, signed: bool = False) -> Corpus:
    """Activations of which most are zero; unit 0 is dead, unit 1 never zero, unit 2 fires once."""
    rng = np.random.default_rng(7)
    corpus = make_corpus(kind, sequences=90, widths=(U,))
    for values in corpus.activations[MODULE]:
        values[rng.random(values.shape) < 0.8] = 0
        if not signed:
            np.abs(values, out=values)
        values[:, 0] = 0
        values[:, 1] = np.abs(rng.standard_normal(len(values))) + 0.1
        values[:, 2] = 0
    corpus.activations[MODULE][40][2, 2] = 2.5
    return replace(corpus, special_ids=SPECIAL)


def broken_corpus() -> Corpus:
    """The same with NaN and infinite activations, some at positions that do not count."""
    corpus = sparse_corpus("random", signed=True)
    rng = np.random.default_rng(3)
    for values in corpus.activations[MODULE][::3]:
        values[rng.integers(len(values)), rng.integers(3, U)] = rng.choice(BROKEN)
    corpus.activations[MODULE][5][:, 4] = np.nan
    return corpus


def triples(padded: npt.NDArray[np.float32]) -> SparseActivations:
    """What of a (B, T, U) array is not zero."""
    rows = torch.from_numpy(padded).reshape(-1, padded.shape[2])
    positions, units = rows.nonzero(as_tuple=True)
    return SparseActivations(padded.shape, positions, units, rows[positions, units])


def feed(corpus: Corpus, config: Record, accumulators: dict[str, Accumulator], order: int = 1) -> None:
    """Take a corpus in, once with and once without its zeros; the padding holds what nothing may look at."""
    table = token_table(corpus, config)
    batches = list(padded_batches(list(enumerate(corpus.token_ids)), config.batch_size))
    for tokens in batches[::order]:
        batch = make_batch(tokens, config, table, corpus.special_ids)
        padded = np.full((*tokens.token_ids.shape, U), 1e9, np.float32)
        for row, seq_id in enumerate(tokens.seq_ids):
            padded[row, : tokens.lengths[row]] = corpus.activations[MODULE][seq_id]
        for name, accumulator in accumulators.items():
            accumulator.add(triples(padded) if name == "sparse" else torch.from_numpy(padded), batch)


def both(corpus: Corpus, config: Record, signed: bool) -> tuple[SparseSums, NumbaSums]:
    covered = len(token_table(corpus, config).token_ids)
    sparse = SparseSums(U, SEQ_LEN, covered, config, signed)
    dense = NumbaSums(U, SEQ_LEN, covered, config, signed)
    feed(corpus, config, {"sparse": sparse, "dense": dense})
    return sparse, dense


def kept(top: TopK, corpus: Corpus, least: float = -np.inf) -> list[dict[tuple[int, str], list[Any]]]:
    """By unit and split, the kept sequences by rank, with their keys and activations."""
    vectors = top.vectors[slice(0, U)]
    found: list[dict[tuple[int, str], list[Any]]] = []
    for unit in range(U):
        rows: dict[tuple[int, str], list[Any]] = {}
        for k in np.lexsort([top.seq_ids[unit], -top.values[unit]]):
            value, seq_id = float(top.values[unit, k]), int(top.seq_ids[unit, k])
            if value > least:
                vector = vectors[unit, k, : len(corpus.token_ids[seq_id])]
                row = (value, seq_id, int(top.keys[unit, k]), [repr(float(x)) for x in vector])
                rows.setdefault((unit, split_of(seq_id)), []).append(row)
        found.append(rows)
    return found


SETTINGS: dict[str, Any] = {
    "usual": {},
    "all texts": {"distinct": False},
    "peak alone": {"distinct_context": 0},
    "zeros fire": {"density_threshold": -0.5, "skip_positions": 0},
    "other numbers": {"top": PerSplit(explain=0, select=7, report=1), "density_threshold": 0.7, "batch_size": 7},
    "negative end": {"polarities": ["-"]},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["random", "tied", "broken"])
@pytest.mark.parametrize("signed", [False, True])
def test_triples_are_recorded_as_the_same_activations_with_their_zeros(kind: str, settings: str, signed: bool) -> None:
    config = SMALL.model_copy(update=SETTINGS[settings])
    corpus = broken_corpus() if kind == "broken" else sparse_corpus(kind, signed)
    accumulators = both(corpus, config, signed)
    found, expected = (accumulator.sums() for accumulator in accumulators)
    assert found.n_tokens == expected.n_tokens
    for name in ("n_nonfinite", "minimum", "maximum", "above", "token_sums"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_array_equal(join_zero_bins(found.histogram), join_zero_bins(expected.histogram))
    np.testing.assert_allclose(found.power_sums.sum(axis=1), expected.power_sums.sum(axis=1), rtol=1e-13)
    assert list(found.top) == list(expected.top)
    for polarity, top in found.top.items():
        assert kept(top, corpus) == kept(expected.top[polarity], corpus, least=0.0)
    sparse_rows, dense_rows = (accumulator.uniform() for accumulator in accumulators)
    assert set(sparse_rows) == set(dense_rows)
    for seq_id, rows in sparse_rows.items():
        for start, stop in ((0, U), (2, 5), (U - 1, U)):
            np.testing.assert_array_equal(rows[start:stop], dense_rows[seq_id][start:stop])


@pytest.mark.parametrize("kind", ["random", "tied"])
def test_the_order_of_the_batches_changes_nothing(kind: str) -> None:
    corpus = sparse_corpus(kind)
    covered = len(token_table(corpus, SMALL).token_ids)
    one, other = SparseSums(U, SEQ_LEN, covered, SMALL), SparseSums(U, SEQ_LEN, covered, SMALL)
    feed(corpus, SMALL, {"sparse": one})
    feed(corpus, SMALL, {"sparse": other}, order=-1)
    first, second = one.sums(), other.sums()
    for name in ("minimum", "maximum", "above", "histogram", "token_sums"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.power_sums.sum(axis=1), second.power_sums.sum(axis=1))
    assert kept(first.top["+"], corpus) == kept(second.top["+"], corpus)


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_the_state_is_the_same_for_any_number_of_threads(threads: int) -> None:
    corpus = broken_corpus()
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            sums = SparseSums(U, SEQ_LEN, len(token_table(corpus, SMALL).token_ids), SMALL, signed=True)
            feed(corpus, SMALL, {"sparse": sums})
            found.append(sums.sums())
    finally:
        torch.set_num_threads(before)
    alone, together = found
    for name in ("n_nonfinite", "minimum", "maximum", "above", "power_sums", "histogram", "token_sums"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    for polarity in ("+", "-"):
        assert kept(alone.top[polarity], corpus) == kept(together.top[polarity], corpus)


def test_a_batch_without_any_activation_is_counted() -> None:
    corpus = make_corpus("dead", sequences=4, widths=(U,))
    found = both(corpus, SMALL, signed=False)[0].sums()
    assert found.n_tokens > 0
    assert (found.minimum == 0).all()
    assert (found.maximum == 0).all()
    assert join_zero_bins(found.histogram).sum() == U * found.n_tokens
    assert not np.isfinite(found.top["+"].values).any()


def recorded(corpus: Corpus, sparse: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows of the final tables."""
    recorder = Recorder(
        {MODULE: ModuleUnits(U, signed=False, sparse=sparse)}, SMALL, token_table(corpus, SMALL), SEQ_LEN, SPECIAL
    )
    for tokens in padded_batches(list(enumerate(corpus.token_ids)), SMALL.batch_size):
        recorder.begin(tokens)
        padded = np.zeros((*tokens.token_ids.shape, U), np.float32)
        for row, seq_id in enumerate(tokens.seq_ids):
            padded[row, : tokens.lengths[row]] = corpus.activations[MODULE][seq_id]
        recorder.add(MODULE, triples(padded) if sparse else torch.from_numpy(padded))
    partial = rows_about(whole_tables(recorder), MODULE, 0, U)
    return {name: table.to_pylist() for name, table in merge([partial], MODULE, 0, U, SMALL, TEXTS).items()}


def test_final_rows_equal_those_of_dense_recording_and_dead_units_have_theirs() -> None:
    corpus = sparse_corpus("random")
    found, expected = recorded(corpus, sparse=True), recorded(corpus, sparse=False)
    for one, other in zip(found["units"], expected["units"], strict=True):
        for name, value in one.items():
            assert value == (pytest.approx(other[name], rel=1e-9) if isinstance(value, float) else other[name]), name
    dead = found["units"][0]
    assert (dead["density"], dead["max"], dead["top_tokens"][0]["mean_activation"]) == (0, 0, 0)

    def of(rows: list[dict[str, Any]], index: int, *bands: str) -> list[str]:
        return [repr(row) for row in rows if row["index"] == index and row["band"] in bands]

    assert not of(found["exemplars"], 0, "top")
    assert len(of(found["exemplars"], 0, "random")) == 4
    assert of(found["exemplars"], 1, "top", "quantile", "random") == of(
        expected["exemplars"], 1, "top", "quantile", "random"
    )
    once = [row for row in found["exemplars"] if row["index"] == 2 and row["band"] == "top"]
    assert [(row["seq_id"], row["max_activation"]) for row in once] == [(40, 2.5)]
    assert Unit(corpus, MODULE, 2, SMALL).peaks()[40] == (2, 2.5)
