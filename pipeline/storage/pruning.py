"""Tables that are of use for a while: once the stage that reads them is finished, their rows are removed from the disk.

The files stay, and say what they did, so that their shards count as done; to make the reading stage anew they have to be
made anew too. A run with `run.keep_partials` keeps the rows.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.schemas import TableSchema
from pipeline.storage.parquet_options import writer_options
from pipeline.storage.shards import atomic_path, remove_leftovers
from pipeline.storage.tables import Tables

HELD = b"held"
"""Key in the footer of a pruned file: the rows that it held of each module."""


def prune(tables: Tables, pruned: Iterable[TableSchema]) -> None:
    """Remove the rows of some tables; can be cut off anywhere and done again, by several processes at a time."""
    for table in pruned:
        remove_leftovers(tables.folder(table))
        for path in tables.files(table):
            if not is_pruned(path):
                _empty(path, table)


def is_pruned(path: Path) -> bool:
    """Whether a file's rows were removed."""
    return HELD in (pq.read_metadata(path).metadata or {})


def rows_by_module(path: Path) -> dict[str, int]:
    """How many rows a file has of each module, or had before they were removed; empty where rows have no module."""
    with pq.ParquetFile(path) as file:
        return _rows_by_module(file)


def _empty(path: Path, table: TableSchema) -> None:
    """Replace a file by one with its footer and no rows."""
    with pq.ParquetFile(path) as file:
        footer = {key: value for key, value in file.metadata.metadata.items() if key != b"ARROW:schema"}
        held = footer.get(HELD) or json.dumps(_rows_by_module(file)).encode()
    nothing = table.schema.empty_table()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, table.schema, **writer_options(table, nothing)) as writer,
    ):
        writer.add_key_value_metadata({**footer, HELD: held})


def _rows_by_module(file: pq.ParquetFile) -> dict[str, int]:
    held = file.metadata.metadata.get(HELD)
    if held is not None:
        found: dict[str, int] = json.loads(held)
        return found
    if "module" not in file.schema_arrow.names:
        return {}
    counts = pc.value_counts(file.read(columns=["module"])["module"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}
