"""A read of a table with many files takes the time of those that hold the rows: the others are neither listed, opened nor read again."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.results.run_folder import open_run
from pipeline.schemas import CORPUS, column, unit_table
from pipeline.storage.checked_reading import checked_dataset
from pipeline.storage.listed_files import ListedFiles
from pipeline.storage.shards import publish
from pipeline.storage.sorted_rows import SortedRows
from pipeline.storage.tables import Tables

VALUES = unit_table("values", 1, column("module", pa.string(), ""), column("index", pa.int32(), ""))
LONG_AGO = 1_600_000_000


def settled(folder: Path) -> None:
    """Have a folder look as if nothing had changed in it for long."""
    os.utime(folder, (LONG_AGO, LONG_AGO))


def write(root: Path, module: str, first: int, last: int, name: str) -> Path:
    rows = pa.table({"module": [module] * (last - first), "index": range(first, last)}, schema=VALUES.schema)
    publish(path := Tables(root).file(VALUES, name), rows, VALUES, {})
    return path


def write_corpus(root: Path, sequences: int) -> Path:
    columns = {"seq_id": range(sequences), "tokens": [[f"t{number}"] for number in range(sequences)]}
    columns |= {name: [None] * sequences for name in CORPUS.schema.names if name not in columns}
    rows = pa.table({name: columns[name] for name in CORPUS.schema.names}, schema=CORPUS.schema)
    publish(path := Tables(root).file(CORPUS, "part-00000"), rows, CORPUS, {})
    return path


def test_a_folder_is_listed_again_once_a_file_came_went_or_was_replaced(tmp_path: Path) -> None:
    listed, (one, two) = ListedFiles(), (tmp_path / "1.parquet", tmp_path / "2.parquet")
    assert listed.of(tmp_path / "nothing") == []
    one.touch()
    settled(tmp_path)
    first = listed.of(tmp_path)
    assert first == [one]
    assert listed.of(tmp_path) is first
    two.touch()
    assert listed.of(tmp_path) == [one, two]
    one.unlink()
    assert listed.of(tmp_path) == [two]
    settled(tmp_path)
    before = listed.of(tmp_path)
    os.replace(two, tmp_path / "2.parquet")
    (tmp_path / ".3.parquet").touch()
    os.replace(tmp_path / ".3.parquet", two)
    assert listed.of(tmp_path) is not before


def test_a_unit_is_read_though_no_other_file_can_be_opened_any_more(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"layers.{number}.mlp", 0, 3, f"part-{number:05d}") for number in range(4)]
    settled(tmp_path / "values")
    run = open_run(tmp_path)
    assert run.unit_rows("values", "layers.0.mlp", 1).to_pylist() == [{"module": "layers.0.mlp", "index": 1}]
    for path in paths[:3]:
        path.write_bytes(b"spoilt")
    settled(tmp_path / "values")
    assert run.unit_rows("values", "layers.3.mlp", 2)["index"].to_pylist() == [2]
    tables = Tables(tmp_path)
    with pytest.raises(Exception, match="damaged"):
        tables.read(VALUES)


def test_shards_that_are_asked_for_are_there_or_are_missed(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, "layers.0.mlp", 3 * number, 3 * number + 3, f"part-{number:05d}")
    tables = Tables(tmp_path)
    assert tables.read(VALUES, shards=["part-00000", "part-00002"])["index"].to_pylist() == [0, 1, 2, 6, 7, 8]
    some = tables.read(VALUES, pc.field("index") > 1, ["index"], ["part-00000", "part-00001"])
    assert some["index"].to_pylist() == [2, 3, 4, 5]
    with pytest.raises(FileNotFoundError, match="part-00009"):
        tables.read(VALUES, shards=["part-00000", "part-00009"])


@pytest.mark.parametrize("wanted", [[], [0], [1023, 1024], [4999], [7000], list(range(0, 5000, 7))])
def test_sequences_are_found_by_their_numbers_as_by_looking_at_all(tmp_path: Path, wanted: list[int]) -> None:
    write_corpus(tmp_path, 5000)
    found = Tables(tmp_path).numbered(CORPUS, [*wanted, *wanted], ["seq_id", "tokens"])
    assert found["seq_id"].to_pylist() == [number for number in wanted if number < 5000]
    assert found["tokens"].to_pylist() == [[f"t{number}"] for number in wanted if number < 5000]


def test_row_groups_that_hold_none_of_the_numbers_are_not_read(tmp_path: Path) -> None:
    path = write_corpus(tmp_path, 5000)
    chunk = pq.read_metadata(path).row_group(2).column(0)
    rows = SortedRows(checked_dataset([path]), "seq_id")
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size // 2)
        file.write(b"spoilt")
    many = [*range(2048), *range(3072, 4000)]
    assert rows.read(many, pc.field("seq_id").isin(many)).num_rows == len(many)
    with pytest.raises(OSError, match="CRC"):
        rows.read([2100], pc.field("seq_id") == 2100)


def test_rows_of_a_module_are_found_among_those_of_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [(f"layers.{number}.mlp", index) for number in (2, 0, 1) for index in range(300)]
    rows = pa.table({"module": [one for one, _ in parts], "index": [two for _, two in parts]}, schema=VALUES.schema)
    publish(path := Tables(tmp_path).file(VALUES, "part-00000"), rows, VALUES, {})
    found = SortedRows(checked_dataset([path]), "index")
    for start in rng.integers(0, 290, 20).tolist():
        where = (pc.field("module") == "layers.0.mlp") & (pc.field("index") >= start) & (pc.field("index") < start + 9)
        got = found.read(range(start, start + 9), where, module="layers.0.mlp")
        assert got["index"].to_pylist() == list(range(start, min(start + 9, 300)))
        assert set(got["module"].to_pylist()) == {"layers.0.mlp"}
