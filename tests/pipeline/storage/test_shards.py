"""A published file is whole, says what it is, and is refused when it is not what it should be."""

import contextlib
import errno
import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ClaimLost, UserError
from pipeline.schemas import TableSchema, column
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.footers import CREATED_BY, fingerprint, footer, read_footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages import TABLES
from tests.pipeline.storage.damage import flip

TOY = TableSchema(
    "toy",
    3,
    pa.schema(
        [
            column("module", pa.string(), "m"),
            column("index", pa.int32(), "i"),
            column("values", pa.list_(pa.float32()), "v"),
            column("status", pa.string(), "s"),
        ]
    ),
    units_per_group=64,
)
INPUTS = {"settings": {"seed": 0}}


def toy_rows(units: int, per_unit: int = 3) -> pa.Table:
    index = np.repeat(np.arange(units, dtype=np.int32), per_unit)
    values = [np.arange(4, dtype=np.float32) * i for i in index]
    status = ["failed" if i % 10 == 3 else "ok" for i in index]
    return pa.table({"module": ["layers.0.mlp"] * len(index), "index": index, "values": values, "status": status})


def publish_toy(root: Path, units: int = 200, name: str = "part-00000") -> Path:
    path = Tables(root).file(TOY, name)
    publish(path, toy_rows(units), TOY, footer(INPUTS, {"units": [0, units]}, 1.5))
    return path


def test_a_published_file_says_what_it_is(tmp_path: Path) -> None:
    footer = read_footer(publish_toy(tmp_path))
    assert footer is not None
    assert (footer.schema, footer.fingerprint, footer.rows, footer.seconds) == ("toy/3", fingerprint(INPUTS), 600, 1.5)
    assert footer.inputs == INPUTS
    assert footer.failed == 60
    metadata = pq.read_metadata(Tables(tmp_path).file(TOY, "part-00000")).metadata
    assert {b"git_commit", b"created_by"} <= set(metadata)


def test_row_groups_hold_64_units_and_have_statistics(tmp_path: Path) -> None:
    metadata = pq.read_metadata(publish_toy(tmp_path))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [192, 192, 192, 24]
    statistics = metadata.row_group(1).column(1).statistics
    assert (statistics.min, statistics.max) == (64, 127)
    assert metadata.row_group(0).column(1).has_offset_index
    assert metadata.row_group(0).column(1).has_column_index


def test_one_unit_is_found_without_a_scan(tmp_path: Path) -> None:
    path = publish_toy(tmp_path)
    fragment = next(iter(ds.dataset(path).get_fragments()))
    assert [part.row_groups[0].id for part in fragment.split_by_row_group(ds.field("index") == 130)] == [2]
    assert Tables(tmp_path).read(TOY, ds.field("index") == 130)["index"].to_pylist() == [130] * 3


def test_files_about_other_units_are_passed_over(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    both = pa.concat_tables([toy_rows(40), toy_rows(9).set_column(0, "module", pa.array(["layers.9.mlp"] * 27))])
    parts = {"a": toy_rows(100).slice(0, 150), "b": toy_rows(100).slice(150), "c": both.slice(60), "d": toy_rows(0)}
    for name, rows in parts.items():
        publish(tables.file(TOY, name), rows, TOY, footer(INPUTS, {}, 0))
    for module, index, rows, files in (("0", 10, 3, 3), ("0", 70, 3, 3), ("9", 5, 3, 2), ("5", 5, 0, 2)):
        where = tables.is_unit(f"layers.{module}.mlp", [index])
        found = tables.read(TOY, where)
        assert set(zip(found["module"].to_pylist(), found["index"].to_pylist(), strict=True)) <= {
            (f"layers.{module}.mlp", index)
        }
        assert found.num_rows == rows
        dataset = tables._source(TOY, tables.files(TOY))
        assert len(list(dataset.get_fragments(where))) == files


def test_pieces_are_published_as_one_file_without_being_held_together(tmp_path: Path) -> None:
    before, most = pa.total_allocated_bytes(), 0

    def pieces() -> Iterator[pa.Table]:
        nonlocal most
        for number in range(30):
            most = max(most, pa.total_allocated_bytes() - before)
            index = np.repeat(np.arange(number * 128, number * 128 + 128, dtype=np.int32), 3)
            values = np.random.default_rng(number).standard_normal((384, 500)).astype(np.float32)
            yield pa.table(
                {"module": ["m"] * 384, "index": index, "values": list(values), "status": ["failed"] + ["ok"] * 383}
            )

    path = tmp_path / "a.parquet"
    publish(path, pieces(), TOY, footer(INPUTS, {}, 0))
    found = read_footer(path)
    assert (found.rows, found.failed) == (30 * 384, 30)
    assert pq.read_table(path)["index"].to_pylist() == [n // 3 for n in range(30 * 384)]
    metadata = pq.read_metadata(path)
    assert {metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)} == {192}
    assert most < 30 * 384 * 500 * 4 / 4


def test_an_error_in_a_later_piece_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator[pa.Table]:
        yield toy_rows(10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish(tmp_path / "a.parquet", pieces(), TOY, footer(INPUTS, {}, 0))
    assert list(tmp_path.iterdir()) == []


def test_pandas_pyarrow_and_duckdb_read_the_same_rows(tmp_path: Path) -> None:
    path = publish_toy(tmp_path)
    (path.parent / ".part-00001.parquet.tmp-host-1").write_bytes(b"half a file")
    (path.parent / "_notes").write_text("x")
    frame = pd.read_parquet(path.parent)
    scanned = duckdb.execute(f"SELECT * FROM '{tmp_path}/**/*.parquet'").df()
    dataset = ds.dataset(path.parent).to_table()
    assert len(frame) == len(scanned) == dataset.num_rows == 600
    assert frame["index"].tolist() == scanned["index"].tolist() == dataset["index"].to_pylist()
    np.testing.assert_array_equal(np.stack(frame["values"].to_list()), np.stack(scanned["values"].to_list()))


def test_rows_without_the_right_columns_are_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        publish(tmp_path / "a.parquet", pa.table({"x": [1]}), TOY, footer(INPUTS, {}, 0))
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = publish_toy(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"part-00000\.parquet is damaged: it is truncated.*pipeline repair"):
        read_footer(path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").touch()
    with pytest.raises(UserError, match="truncated"):
        read_footer(tmp_path / "part-00000.parquet")


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "part-00000.parquet")
    with pytest.raises(UserError, match="not written by this pipeline"):
        read_footer(tmp_path / "part-00000.parquet")


def test_flipped_bits_in_the_data_are_not_read(tmp_path: Path) -> None:
    flip(publish_toy(tmp_path, units=2000), "values")
    for read in (lambda: Tables(tmp_path).read(TOY), lambda: list(Tables(tmp_path).batches(TOY))):
        with pytest.raises(
            UserError, match=r"part-00000\.parquet is damaged: in the column values, a checksum does not fit"
        ):
            read()


def test_a_file_of_another_table_or_with_other_columns_is_named(tmp_path: Path) -> None:
    path = publish_toy(tmp_path)
    assert read_footer(path, TOY).rows == 600
    with pytest.raises(UserError, match=r"part-00000\.parquet holds the table toy/3, not other/3; move it away"):
        read_footer(path, replace(TOY, name="other"))
    fewer = replace(TOY, schema=TOY.schema.remove(3))
    publish(path, toy_rows(3).drop_columns("status"), fewer, footer(INPUTS, {}, 0))
    with pytest.raises(UserError, match=r"its columns are not those of toy/3; they differ in status"):
        read_footer(path, TOY)
    narrow = replace(TOY, schema=TOY.schema.set(1, pa.field("index", pa.int64())))
    publish(path, toy_rows(3), narrow, footer(INPUTS, {}, 0))
    with pytest.raises(UserError, match="differ in index"):
        read_footer(path, TOY)


@pytest.mark.parametrize(
    ("key", "value"),
    [("inputs", '{"settings": '), ("inputs", "[]"), ("inputs", "[" * 100_000), ("failed", "x"), ("seconds", "")],
)
def test_a_footer_that_cannot_be_understood_is_named(tmp_path: Path, key: str, value: str) -> None:
    publish(tmp_path / "a.parquet", toy_rows(3), TOY, {**footer(INPUTS, {}, 0), key: value})
    if key == "failed":
        with pq.ParquetWriter(tmp_path / "a.parquet", TOY.schema) as writer:
            writer.add_key_value_metadata({"schema": TOY.tag, **footer(INPUTS, {}, 0), key: value})
    with pytest.raises(UserError, match=r"a\.parquet is damaged: its footer cannot be understood"):
        read_footer(tmp_path / "a.parquet")


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path, number: int) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(UserError, match="make room"), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(UserError, match="give another folder"):
        publish_toy(tmp_path / "outputs")


def test_files_name_the_version_of_the_project() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert f"{project['name']} {project['version']}" == CREATED_BY


def test_every_column_of_every_table_says_what_it_means() -> None:
    for table in TABLES.values():
        for field in table.schema:
            assert (field.metadata or {}).get(b"meaning"), f"{table.name}.{field.name}"


def test_what_is_published_under_a_claim_is_never_replaced(tmp_path: Path) -> None:
    path, asked = tmp_path / "a", []
    for number in range(2):
        with contextlib.suppress(ClaimLost), atomic_path(path, lambda: asked.append(path.exists())) as temporary:
            temporary.write_text(str(number))
    assert path.read_text() == "0"
    assert asked == [False, True]
    assert list(tmp_path.iterdir()) == [path]


def test_a_claim_that_was_lost_keeps_a_file_from_being_published(tmp_path: Path) -> None:
    def lost() -> None:
        raise ClaimLost("another worker")

    with pytest.raises(ClaimLost), atomic_path(tmp_path / "a", lost) as temporary:
        temporary.write_text("late")
    assert list(tmp_path.iterdir()) == []
