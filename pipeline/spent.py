"""Tables that are of use for a while: once the stage that reads them is finished, their rows are removed from the disk.

The files stay, and say what they did, so that their shards count as done; to make the reading stage anew they have to be
made anew too. A run with `run.keep_partials` keeps the rows.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encoding import writer_options
from pipeline.errors import UserError
from pipeline.schemas import TableSchema
from pipeline.shards import atomic_path, remove_leftovers
from pipeline.stage import Stage
from pipeline.tables import Tables

HELD = b"held"
"""Key in the footer of a spent file: the rows that it held of each module."""


def spend(tables: Tables, spent: Iterable[TableSchema]) -> None:
    """Remove the rows of some tables; can be cut off anywhere and done again, by several processes at a time."""
    for table in spent:
        remove_leftovers(tables.folder(table))
        for path in tables.files(table):
            if not is_spent(path):
                _empty(path, table)


def is_spent(path: Path) -> bool:
    """Whether a file's rows were removed."""
    return HELD in (pq.read_metadata(path).metadata or {})


def rows_by_module(path: Path) -> dict[str, int]:
    """How many rows a file has of each module, or had before they were removed; empty where rows have no module."""
    with pq.ParquetFile(path) as file:
        return _rows_by_module(file)


def refuse_spent(stage: Stage, stages: Mapping[str, Stage], tables: Tables, made_anew: Collection[str] = ()) -> None:
    """Raises UserError where a stage would need rows that were removed.

    Args:
        made_anew: names of the stages that will run again before it.
    """
    for table in stage.spends:
        writer = next(name for name in stage.reads if table in stages[name].writes)
        if writer not in made_anew and any(map(is_spent, tables.files(table))):
            raise UserError(
                f"{stage.name} reads {tables.folder(table)}, whose rows were removed once it was finished; "
                f"make them anew with --redo {writer}, and keep them with run.keep_partials = true"
            )


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
