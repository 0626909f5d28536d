"""How the columns of a table are written to Parquet: small, and for any reader of the format."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schemas.columns import TableSchema


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


FIRST = 4096
"""Rows that are looked at to choose an encoding."""


def _mostly_zero(rows: pa.Table, path: str) -> bool:
    """Whether a path is a list of floats, more than half of which are 0."""
    name, *inner = path.split(".")
    if inner != ["list", "element"]:
        return False
    values = pc.fill_null(pc.list_flatten(rows[name].slice(0, FIRST)), np.nan).to_numpy()
    return bool(2 * np.count_nonzero(values == 0) > len(values))
