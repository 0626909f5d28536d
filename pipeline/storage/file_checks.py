"""What can be wrong with one file of a table: its pages, its rows, its footer, and what it says that it covers."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.schemas import TableSchema
from pipeline.storage.checked_reading import FAULTS, ROWS, DamagedFileError, damage_of
from pipeline.storage.footers import Footer, read_footer
from pipeline.storage.stores import open_parquet
from pipeline.storage.tables import is_pruned

PIECE = 1 << 20
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a file."""

    path: Path
    text: str


@dataclass(frozen=True)
class Units:
    """The units that a shard is about."""

    module: str
    indices: frozenset[int] | range | None
    """None where the shard is about all units of the module."""


def units_of(shard: str) -> Units | None:
    """The units that a shard is about, by what its footer says that it covers; None where it is not about units of one module."""
    try:
        key: dict[str, Any] = json.loads(shard)
        module = key["module"]
        if "indices" in key:
            return Units(module, frozenset(key["indices"]))
        if "stop" in key:
            return Units(module, range(key["start"], key["stop"]))
        first, last = key.get("units", (key.get("first"), key.get("last")))
        return Units(module, None if first is None else range(first, last + 1))
    except (ValueError, KeyError, TypeError):
        return None


def check_file(path: Path, table: TableSchema | None) -> tuple[Footer | None, list[Problem]]:
    """Read a whole file, a few thousand rows at a time.

    Args:
        table: that the file has to be of; None where only its pages are looked at.

    Returns:
        Its footer, where that can be read, and what is wrong.
    """
    if table is None:
        return None, [Problem(path, reason)] if (reason := damage_of(path)) else []
    try:
        footer = read_footer(path, table)
    except DamagedFileError as error:
        return None, [Problem(path, error.reason)]
    except UserError as error:
        return None, [Problem(path, str(error).removeprefix(f"{path} "))]
    if reason := damage_of(path):
        return footer, [Problem(path, reason)]
    try:
        return footer, [Problem(path, text) for text in _wrong(path, table, footer)]
    except FAULTS as error:
        return footer, [Problem(path, f"it cannot be read ({error})")]


def _wrong(path: Path, table: TableSchema, footer: Footer) -> Iterator[str]:
    with open_parquet(path) as file:
        if footer.content and not is_pruned(path) and footer.content != _digest(path, file.metadata):
            yield "its rows are not those that were written, by the digest in its footer"
        failed, units, outside = 0, units_of(footer.shard), 0
        looked_up = list(dict.fromkeys([*table.key, *(name for one in table.refers for name in one.columns)]))
        columns = [*dict.fromkeys([*looked_up, *({"module", "index", "status"} & set(file.schema_arrow.names))])]
        for number in range(file.num_row_groups if columns else 0):
            rows = pa.Table.from_batches(file.iter_batches(batch_size=ROWS, row_groups=[number], columns=columns))
            if wrong := [name for name in looked_up if not _statistics_fit(file.metadata, number, name, rows[name])]:
                yield f"the statistics of its row group {number} are wrong for {', '.join(wrong)}, so that rows are passed over"
            if "status" in columns:
                failed += pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0
            if units and {"module", "index"} <= set(columns):
                outside += _outside(rows, units)
    if failed != footer.failed and not is_pruned(path):
        yield f"its footer says that {footer.failed:,} of its rows failed, but {failed:,} did"
    if outside:
        yield f"{outside:,} of its rows are about units that its shard does not cover"


def _digest(path: Path, metadata: pq.FileMetaData) -> str:
    """The digest of all that stands before the footer and the indices in front of it, as whoever writes a file takes it."""
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    starts = (chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks)
    left = max((start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)), default=4)
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, PIECE))):
            found.update(piece)
            left -= len(piece)
    return found.hexdigest()


def _statistics_fit(metadata: pq.FileMetaData, group: int, name: str, values: pa.ChunkedArray) -> bool:
    """Whether the smallest and the largest value of a column are those by which readers pass a row group over."""
    statistics = metadata.row_group(group).column(_place(metadata, name)).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    ends: Mapping[str, Any] = pc.min_max(values).as_py()
    return (statistics.min, statistics.max) == (ends["min"], ends["max"])


def _place(metadata: pq.FileMetaData, name: str) -> int:
    paths: Sequence[str] = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    return paths.index(name)


def _outside(rows: pa.Table, units: Units) -> int:
    within = pc.equal(rows["module"], units.module)
    if isinstance(units.indices, range):
        index = rows["index"]
        fits = pc.and_(pc.greater_equal(index, units.indices.start), pc.less(index, units.indices.stop))
        within = pc.and_(within, fits)
    elif units.indices is not None:
        within = pc.and_(within, pc.is_in(rows["index"], pa.array(units.indices, rows["index"].type)))
    return rows.num_rows - (pc.sum(within).as_py() or 0)
