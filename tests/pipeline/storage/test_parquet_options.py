"""Columns are written small, and every reader finds the values that were written."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.schemas import TableSchema, column
from pipeline.storage.shards import publish
from stages.record.exemplars import rounded

KINDS = {
    "n": pa.int32(),
    "x": pa.float64(),
    "values": pa.list_(pa.float32()),
    "best": pa.list_(pa.struct([pa.field("token", pa.string()), pa.field("mean", pa.float32())])),
}
SCHEMA = pa.schema([column(name, kind, "m") for name, kind in KINDS.items()])
ROWS, WIDTH = 2000, 64


def made(values: Any) -> pa.Table:
    """Rows with these activations and 8 of 100 tokens each."""
    rng = np.random.default_rng(0)
    words = [[f"token {place}" for place in row] for row in rng.integers(0, 100, (ROWS, 8))]
    best = [[{"token": word, "mean": 0.5} for word in row] for row in words]
    columns = {"n": rng.integers(0, 300, ROWS), "x": rng.standard_normal(ROWS), "values": list(values), "best": best}
    return pa.table(columns).cast(SCHEMA)


def written(path: Path, rows: pa.Table, folder: str = "") -> dict[str, tuple[int, set[str]]]:
    """Bytes and encodings of each column of a file of these rows."""
    publish(path, rows, TableSchema("toy", 1, SCHEMA, rows_per_group=ROWS, folder=folder), {})
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema: (column.total_compressed_size, set(column.encodings)) for column in columns}


def noise() -> Any:
    return np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)


def rare() -> Any:
    return np.where(np.random.default_rng(2).random((ROWS, WIDTH)) < 0.02, noise(), np.float32(0))


@pytest.mark.parametrize("values", [noise(), rare(), rounded(noise(), 11)], ids=["noise", "rare", "rounded"])
def test_every_reader_finds_what_was_written(tmp_path: Path, values: Any) -> None:
    rows = made(values)
    written(tmp_path / "a.parquet", rows)
    assert pq.read_table(tmp_path / "a.parquet").equals(rows)
    frame = pd.read_parquet(tmp_path / "a.parquet")
    scanned = duckdb.execute(f"SELECT * FROM '{tmp_path}/a.parquet'").df()
    for found in (frame, scanned):
        np.testing.assert_array_equal(np.stack(found["values"].to_list()), values)
        assert found["x"].tolist() == rows["x"].to_pylist()
        assert [list(row) for row in found["best"]] == rows["best"].to_pylist()


def test_eleven_bits_take_about_half_the_disk(tmp_path: Path) -> None:
    sizes = {}
    for bits in (11, 24):
        found = written(tmp_path / "a.parquet", made(rounded(noise(), bits)))
        sizes[bits], encodings = found["values.list.element"]
        assert "BYTE_STREAM_SPLIT" in encodings
    assert sizes[11] < 0.56 * sizes[24] < 0.5 * noise().nbytes


def test_runs_of_zeros_are_kept_together_and_take_little(tmp_path: Path) -> None:
    values = rare()
    size, encodings = written(tmp_path / "a.parquet", made(values))["values.list.element"]
    assert "BYTE_STREAM_SPLIT" not in encodings
    split, _ = written(tmp_path / "a.parquet", made(np.where(values == 0, np.float32(1), values)))[
        "values.list.element"
    ]
    assert size < 0.7 * split
    assert size < 7 * np.count_nonzero(values)


def test_texts_in_lists_are_written_once_each(tmp_path: Path) -> None:
    found = written(tmp_path / "a.parquet", made(noise()))
    assert "RLE_DICTIONARY" in found["best.list.element.token"][1]
    assert found["best.list.element.token"][0] < ROWS * 8
    assert "RLE_DICTIONARY" in found["n"][1]


def test_whole_numbers_of_work_tables_are_written_as_they_are(tmp_path: Path) -> None:
    assert "RLE_DICTIONARY" not in written(tmp_path / "a.parquet", made(noise()), "_partials/toy")["n"][1]


def test_a_table_without_rows_can_be_written(tmp_path: Path) -> None:
    table = TableSchema("toy", 1, SCHEMA)
    publish(tmp_path / "a.parquet", iter([]), table, {})
    assert pq.read_table(tmp_path / "a.parquet").equals(SCHEMA.empty_table())
