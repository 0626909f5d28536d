"""The finished dataset, read as its users would."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr

from pipeline.storage.tables import Tables
from stages import STAGES, TABLES
from stages.evidence import split_of
from tests.integration.reduced import call

SASC = [
    table.name for stage in STAGES.values() if stage.method == "sasc" for table in stage.writes if table.name in TABLES
]
NOT_ASKED_FOR = ["details", "negatives", "judged_texts", "judgements", "example_scores", *SASC]
"""Tables that the run file of the reduced demo does not ask for."""
WRITTEN = [name for name in TABLES if name not in NOT_ASKED_FOR]


def test_the_query_of_the_readme_works_as_it_stands(root: Path) -> None:
    rows = duckdb.execute(
        f"SELECT text, correlation FROM '{root}/scores/**/*.parquet' ORDER BY correlation DESC"
    ).fetchall()
    scored = [row[1] for row in rows if row[1] is not None]
    statuses = [row[0] for row in duckdb.execute(f"SELECT status FROM '{root}/scores/*.parquet'").fetchall()]
    assert 5 <= len(scored) == statuses.count("ok") <= 10
    assert scored == sorted(scored, reverse=True)
    assert rows[len(scored) :] == [row for row in rows if row[1] is None]


@pytest.mark.parametrize("name", WRITTEN)
def test_pandas_pyarrow_and_duckdb_agree(root: Path, name: str) -> None:
    frame = pd.read_parquet(root / name)
    dataset = ds.dataset(root / name).to_table()
    counted = duckdb.execute(f"SELECT count(*) FROM '{root}/{name}/*.parquet'").fetchall()[0][0]
    assert len(frame) == dataset.num_rows == counted > 0
    assert list(frame.columns) == dataset.schema.names == TABLES[name].schema.names


@pytest.mark.parametrize("name", NOT_ASKED_FOR)
def test_what_is_not_asked_for_has_no_file_and_reads_as_empty(root: Path, name: str) -> None:
    assert not (root / name).exists()
    assert Tables(root).read(TABLES[name]).equals(TABLES[name].schema.empty_table())


def floats(values: pa.Array) -> Iterator[pa.Array]:
    """The numbers of a column, those in lists and structs too, without nulls."""
    if pa.types.is_floating(values.type):
        yield values.drop_null()
    elif pa.types.is_list(values.type):
        yield from floats(values.flatten())
    elif pa.types.is_struct(values.type):
        for part in values.flatten():
            yield from floats(part)


@pytest.mark.parametrize("name", WRITTEN)
def test_no_float_column_holds_a_nan(root: Path, name: str) -> None:
    """DuckDB sorts NaN above every number; what could not be computed is null."""
    rows = ds.dataset(root / name).to_table()
    for column in rows.column_names:
        for values in floats(rows[column].combine_chunks()):
            assert not np.isnan(values.to_numpy()).any(), f"{name}.{column}"


def test_activations_are_null_where_they_do_not_count(root: Path) -> None:
    rows = ds.dataset(root / "exemplars").to_table(columns=["activations"])["activations"].to_pylist()
    assert rows
    for activations in rows:
        assert activations[0] is None, "the first position is skipped"
        assert None not in activations[1:]


def test_every_unit_is_recorded_and_sorted(root: Path) -> None:
    units = ds.dataset(root / "units").to_table().to_pandas()
    assert units.groupby("module").size().to_dict() == {"layers.2.mlp": 1536, "layers.9.mlp": 1536}
    for path in sorted((root / "units").glob("*.parquet")):
        index = pq.read_table(path)["index"].to_numpy()
        assert (np.diff(index) > 0).all()


def test_splits_are_disjoint_and_belong_to_the_sequence(root: Path) -> None:
    rows = ds.dataset(root / "exemplars").to_table(columns=["seq_id", "split"]).to_pandas().drop_duplicates()
    assert rows["seq_id"].is_unique
    assert all(split_of(seq_id) == split for seq_id, split in zip(rows["seq_id"], rows["split"], strict=True))
    assert set(rows["split"]) == {"explain", "select", "report"}


def test_simulations_are_of_held_out_sequences_only(root: Path) -> None:
    splits = duckdb.execute(f"SELECT DISTINCT split FROM '{root}/simulations/*.parquet' ORDER BY 1").fetchall()
    assert splits == [("report",), ("select",)]
    controls = duckdb.execute(
        f"SELECT count(*) FROM '{root}/simulations/*.parquet' WHERE (control = 'shuffled') = (source = \"index\")"
    ).fetchall()
    assert controls == [(0,)]
    single = duckdb.execute(
        f"SELECT DISTINCT split FROM '{root}/simulations/*.parquet' WHERE control NOT IN ('', 'shuffled')"
    ).fetchall()
    assert single == [("report",)]


def test_a_published_correlation_can_be_computed_again_from_the_tables(root: Path) -> None:
    scores = pd.read_parquet(root / "scores").query("status == 'ok'")
    simulations = pd.read_parquet(root / "simulations").query("control == '' and split == 'report'")
    exemplars = pd.read_parquet(root / "exemplars").query("split == 'report' and band != 'quantile'")
    for score in scores.to_dict("records"):
        unit = {"module": score["module"], "index": score["index"]}
        truth = of(exemplars, **unit).drop_duplicates("seq_id").set_index("seq_id")["activations"]
        mine = of(simulations, **unit, candidate=score["candidate"]).set_index("seq_id")["expected"]
        true = np.concatenate([truth[seq_id][1:] for seq_id in mine.index])
        expected = np.concatenate([mine[seq_id][1:] for seq_id in mine.index])
        assert score["correlation"] == pytest.approx(pearsonr(true, expected).statistic, abs=1e-5)
        assert score["n_sequences"] == len(mine)


def of(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Rows that have these values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame


def test_one_unit_is_fetched_without_a_scan(root: Path) -> None:
    fragments = list(ds.dataset(root / "exemplars").get_fragments())
    wanted = (ds.field("module") == "layers.9.mlp") & (ds.field("index") == 700)
    groups = [part for fragment in fragments for part in fragment.split_by_row_group(wanted)]
    assert sum(len(group.row_groups) for group in groups) == 1
    rows = ds.dataset(root / "exemplars").to_table(filter=wanted)
    assert set(rows["index"].to_pylist()) == {700}


def test_footers_trace_a_table_to_what_made_it(root: Path) -> None:
    for name in TABLES:
        for path in (root / name).glob("*.parquet"):
            footer = pq.read_metadata(path).metadata
            assert footer[b"schema"].decode() == TABLES[name].tag
            inputs = json.loads(footer[b"inputs"])
            assert len(footer[b"fingerprint"]) == 16
            assert inputs["settings"]
            assert footer[b"created_by"].startswith(b"neurogloss")


def test_the_query_command_prints_tables_csv_json_and_parquet(finished: Path, tmp_path: Path) -> None:
    sql = 'SELECT module, count(DISTINCT "index") AS n FROM scores GROUP BY module ORDER BY module'
    assert "layers.2.mlp 5" in " ".join(call("query", "--config", str(finished), sql).stdout.split())
    assert call("query", "--config", str(finished), "--format", "csv", sql).stdout.splitlines()[1] == "layers.2.mlp,5"
    lines = call("query", "--config", str(finished), "--format", "json", sql).stdout.splitlines()
    assert json.loads(lines[1]) == {"module": "layers.9.mlp", "n": 5}
    with (tmp_path / "x.parquet").open("wb") as out:
        arguments = ["query", "--config", str(finished), "--format", "parquet", sql]
        subprocess.run([sys.executable, "-m", "pipeline", *arguments], stdout=out, check=True)
    assert pq.read_table(tmp_path / "x.parquet")["n"].to_pylist() == [5, 5]


def test_without_sql_the_best_explanations_are_printed(finished: Path) -> None:
    printed = call("query", "--config", str(finished)).stdout
    columns = ["module", "index", "corpus", "correlation", "ci_low", "ci_high", "control", "text"]
    assert printed.splitlines()[0].split() == columns
    assert 7 <= len(printed.splitlines()) <= 12


def test_a_wrong_query_is_told_with_the_tables_and_without_a_traceback(finished: Path) -> None:
    wrong = call("query", "--config", str(finished), "SELECT nothing FROM scores")
    assert wrong.returncode == 2
    assert "nothing" in wrong.stderr
    assert "exemplars, explanations, scores, simulations, token_means, unit_tokens, units" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_status_shows_every_stage(finished: Path) -> None:
    printed = call("status", "--config", str(finished)).stdout
    table, tested = printed.split("\n\n")
    assert tested.startswith("statistics, word: 0 of 10 do better than their controls")
    assert "with 4 controls no p-value can be below 0.200, so none can be found; raise simulate.controls" in tested
    lines = {line.split()[0]: line.split() for line in table.splitlines()[2:]}
    recording = ["record.scan", "record.merge", "record.weights", "record.details", "record.embed", "record.negatives"]
    assert list(lines) == ["corpus", *recording, "explain", "simulate", "score", "judge.texts", "judge"]
    assert lines["record.scan"][1:4] == ["4", "0", "0"], "of 32 numbers each, some of which no sequence has"
    assert lines["explain"][1:4] == ["6", "0", "0"]
