"""The Parquet files of a shard: written whole, small, and for any reader of Parquet."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.schemas import TableSchema
from pipeline.storage.atomic_files import atomic_path

if TYPE_CHECKING:
    from typing_extensions import Buffer

FIRST = 4096
"""Rows that are looked at to choose an encoding."""


def publish(
    path: Path,
    rows: pa.Table | Iterable[pa.Table],
    table: TableSchema,
    footer: Mapping[str, str],
    claimed: Callable[[], None] | None = None,
) -> None:
    """Write one table of a shard under its final name, all or nothing.

    Args:
        rows: all of them, or some after the other in the table's order; only one piece is in memory at a time. Row groups end
            where a piece ends.
        footer: what the file says of itself, beside its schema and its failed rows; see `Footer`.
        claimed: as in `atomic_path`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
        ValueError: the rows do not have the table's columns.
    """
    pieces = (_cast(piece, table) for piece in ([rows] if isinstance(rows, pa.Table) else rows))
    first = next(pieces, table.schema.empty_table())
    options, failed = writer_options(table, first), 0
    with (
        atomic_path(path, claimed) as temporary,
        DigestedFile(temporary) as file,
        pq.ParquetWriter(pa.PythonFile(file, "w"), table.schema, **options) as writer,
    ):
        for piece in chain([first], pieces):
            failed += _failed(piece)
            for start, stop in _groups(piece, table):
                writer.write_table(piece.slice(start, stop - start))
        said = {"schema": table.tag, **footer, "failed": str(failed), "content": file.digest}
        writer.add_key_value_metadata(said)


class DigestedFile(io.FileIO):
    """A file to write that knows a digest of what was written so far: of a shard's rows, before its footer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, data: "Buffer") -> int:
        """Write all of it."""
        self._hash.update(data)
        written, view = 0, memoryview(data)
        while written < len(view):
            written += super().write(view[written:])
        return written

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _cast(rows: pa.Table, table: TableSchema) -> pa.Table:
    if rows.schema.names != table.schema.names:
        raise ValueError(f"{table.name}: columns {rows.schema.names}, expected {table.schema.names}")
    return rows.cast(table.schema)


def _failed(rows: pa.Table) -> int:
    if "status" not in rows.schema.names:
        return 0
    return int(np.count_nonzero(rows["status"].to_numpy(zero_copy_only=False) == "failed"))


def _groups(rows: pa.Table, table: TableSchema) -> Iterator[tuple[int, int]]:
    """Row ranges of the row groups."""
    if rows.num_rows == 0:
        return
    if table.units_per_group is None:
        cuts = list(range(0, rows.num_rows, table.rows_per_group))
    else:
        modules = rows["module"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        indices = rows["index"].to_numpy()
        starts = np.flatnonzero(np.diff(modules, prepend=-1) | np.diff(indices, prepend=-1))
        cuts = starts[:: table.units_per_group].tolist()
    yield from zip(cuts, [*cuts[1:], rows.num_rows], strict=True)


def writer_options(table: TableSchema, rows: pa.Table) -> dict[str, Any]:
    """Arguments of pq.ParquetWriter, by a table's types and its first rows.

    Texts, in lists too, have a dictionary, and so have the whole numbers of published tables, which come again and again. Of
    floats the first bytes of all values lie together, then the second ones and so on (BYTE_STREAM_SPLIT), a sixth smaller
    for noise and half for rounded numbers; but where most of them are 0 they lie as they are, so that runs of zeros stay runs.
    """
    leaves = dict(leaf for field in table.schema for leaf in _leaves(field.name, field.type))
    numbers = set() if table.folder else {field.name for field in table.schema if pa.types.is_integer(field.type)}
    floats = [path for path, kind in leaves.items() if pa.types.is_floating(kind) and not _mostly_zero(rows, path)]
    return {
        "compression": "zstd",
        "write_statistics": [field.name for field in table.schema if not pa.types.is_binary(field.type)],
        "write_page_index": True,
        "write_page_checksum": True,
        "use_dictionary": [path for path, kind in leaves.items() if pa.types.is_string(kind) or path in numbers],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Path and type of each column of values that a field has in the file."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind


def _mostly_zero(rows: pa.Table, path: str) -> bool:
    """Whether a path is a list of floats, more than half of which are 0."""
    name, *inner = path.split(".")
    if inner != ["list", "element"]:
        return False
    values = pc.fill_null(pc.list_flatten(rows[name].slice(0, FIRST)), np.nan).to_numpy()
    return bool(2 * np.count_nonzero(values == 0) > len(values))
