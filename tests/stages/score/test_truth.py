"""What simulations are held against, and what is known of how it was kept, as the tables of a run have it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Shard
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS, TableSchema
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.evidence import split_of
from stages.score.kept_sequences import Drawn, kept_of_units
from stages.score.score_units import SCORE
from stages.score.truth import true_activations
from stages.settings import SECTIONS

MODULE = "layers.0.mlp"
SEQUENCES = 48
BOTH = ("select", "report")


def context(folder: Path, polarity: str = "+", **changes: Any) -> Context:
    """A run with one unit: of the 12 report sequences two are top and three were drawn, one of them for both reasons."""
    values = {
        "run": {"name": "r", "folder": str(folder)},
        "subject": {"model": "m", "modules": [MODULE]},
        "corpus": {"source": "c.txt"},
        "record": {"random": {"explain": 0, "select": 0, "report": 3}, "quantiles": [0.5, 0.9, 0.99]},
    }
    config = parse_config(values | changes, "r.toml", SECTIONS)

    def write(table: TableSchema, rows: list[dict[str, Any]]) -> None:
        path = Tables(config.root).file(table, Shard("part-00000", {}).name)
        publish(path, pa.Table.from_pylist(rows, table.schema), table, {})

    write(CORPUS, [{"seq_id": number, "split": split_of(number), "doc_id": "d"} for number in range(SEQUENCES)])
    ends = {"quantile_boundaries": [1, 2, 3], "quantile_boundaries_negative": [-4, -5, -6]}
    write(UNITS, [{"module": MODULE, "index": 2, **ends}])
    kept = [("top", 3), ("top", 7), ("random", 7), ("random", 11), ("random", 15), ("quantile", 19), ("top", 1)]
    rows = [
        {
            "module": MODULE, "index": 2, "polarity": polarity, "band": band, "split": split_of(seq_id), "rank": rank,
            "seq_id": seq_id, "activations": [9.0, float(seq_id), None],
        }
        for rank, (band, seq_id) in enumerate(kept)
    ]  # fmt: skip
    write(EXEMPLARS, rows)
    return Context(config, SCORE)


def test_each_sequence_counts_once_whatever_it_was_kept_for_and_the_quantile_bands_do_not(tmp_path: Path) -> None:
    truth = true_activations(context(tmp_path), MODULE, [2], BOTH, "+")
    found = truth.sequences
    assert found["seq_id"].tolist() == [1, 3, 7, 11, 15]
    assert found["is_report"].tolist() == [False, True, True, True, True]
    assert found["is_top"].tolist() == [True, True, True, False, False]
    assert found["is_random"].tolist() == [False, False, True, True, True]
    assert found["shift"].tolist() == [pytest.approx(np.mean([1, 3, 7, 7, 11, 15]))] * 5
    rows = [truth.values[start : start + 3].tolist() for start in found["true_start"]]
    assert [row[1] for row in rows] == [1, 3, 7, 11, 15]
    assert all(np.isnan([row[0], row[2]]).all() for row in rows), "the first position is left out of the record"


def test_activations_of_the_other_polarity_are_negated(tmp_path: Path) -> None:
    truth = true_activations(context(tmp_path, "-"), MODULE, [2], BOTH, "-")
    assert truth.values[truth.sequences["true_start"][1] + 1] == -3


def test_a_stage_without_a_split_gets_none_of_its_activations(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="explain"):
        true_activations(context(tmp_path), MODULE, [2], ("explain",), "+")


@pytest.mark.parametrize(("polarity", "fires_above"), [("+", 3), ("-", 6)])
def test_how_sequences_were_kept_comes_from_the_corpus_and_when_a_unit_fires_from_its_statistics(
    tmp_path: Path, polarity: str, fires_above: float
) -> None:
    run = context(tmp_path, polarity)
    [kept] = kept_of_units(run, MODULE, polarity, [2], true_activations(run, MODULE, [2], BOTH, polarity)).values()
    assert kept.report == Drawn(total=12, top=2, random=2, known=2)
    assert kept.select == Drawn(total=12, top=1, random=0, known=0)
    assert kept.fires_above == fires_above


def test_of_an_imported_run_nobody_knows_how_large_its_corpus_was(tmp_path: Path) -> None:
    run = context(tmp_path, corpus={"source": "imported"})
    [kept] = kept_of_units(run, MODULE, "+", [2], true_activations(run, MODULE, [2], BOTH, "+")).values()
    assert np.isnan(kept.report.weights(np.array([True, False]))).all()
