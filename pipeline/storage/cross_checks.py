"""What can be wrong between the files of a run: rows that are there twice, rows about nothing, sequences and documents in two splits.

DuckDB compares, in bounded memory: what does not fit goes to a temporary folder.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.schemas import CORPUS, Reference, TableSchema
from pipeline.storage.file_checks import Problem
from pipeline.storage.stores import is_remote, place

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "1GB"
WHOLE_FROM = 2
"""A corpus of more documents than these has each of them in one split."""
Files = Mapping[str, tuple[TableSchema, Sequence[Path]]]
"""By the name of a table, the table and its files."""


def compare_files(whole: Files, incomplete: Sequence[str], step: Callable[[str], None]) -> Iterator[Problem]:
    """Compare the files of a run with each other.

    Args:
        whole: tables with the files that are sound in themselves, as pyarrow reads them.
        incomplete: names of tables that have other files, too; nothing is missed there.
        step: is told what is looked at.
    """
    import duckdb

    try:
        yield from _compared(whole, incomplete, step)
    except duckdb.Error:  # damage between the pages, which pyarrow passes over
        unreadable = list(_unreadable(whole))
        if not unreadable:
            raise
        yield from unreadable


def _unreadable(whole: Files) -> Iterator[Problem]:
    """The files that DuckDB cannot read."""
    import duckdb

    for name, (table, files) in whole.items():
        for path in files:
            try:
                with _opened({name: (table, [path])}) as connection:
                    connection.execute(f'SELECT count(COLUMNS(*)) FROM "{name}"').fetchall()
                    for column in table.key:
                        connection.execute(f'SELECT count(DISTINCT "{column}") FROM "{name}"').fetchall()
            except duckdb.Error as error:
                said, _, _ = str(error).strip().partition("\n")
                yield Problem(path, f"DuckDB cannot read it ({said})")


def _compared(whole: Files, incomplete: Sequence[str], step: Callable[[str], None]) -> Iterator[Problem]:
    with _opened(whole) as connection:
        for name, (table, _) in whole.items():
            if table.key:
                step(f"{name}: each row once")
                yield from _twice(connection, name, table.key)
            for reference in table.refers:
                if reference.table in whole and reference.table not in incomplete:
                    step(f"{name}: each row with its {reference.table}")
                    yield from _without(connection, name, reference)
        if CORPUS.name in whole:
            yield from _twice(connection, CORPUS.name, ("doc_id", "start"), "token_ids IS NOT NULL")
            step("splits: each document in one")
            yield from _documents_in_two_splits(connection)
        split = [
            name
            for name, (table, _) in whole.items()
            if not table.folder and {"seq_id", "split"} <= set(table.schema.names)
        ]
        if split:
            step("splits: each sequence in one")
            yield from _in_two_splits(connection, split)


@contextmanager
def _opened(whole: Files) -> "Iterator[DuckDBPyConnection]":
    """A view for each table, in which `filename` says where a row stands."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="neurogloss-") as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {"memory_limit": MEMORY, "temp_directory": folder}
        with duckdb.connect(config=settings | {"preserve_insertion_order": "false"}) as connection:
            for store in {cast(Any, files[0]).fs for _, files in whole.values() if is_remote(files[0])}:
                connection.register_filesystem(store)
            for name, (_, files) in whole.items():
                listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
                connection.execute(
                    f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{listed}], filename = true, hive_partitioning = false)'
                )
            yield connection


def _twice(connection: "DuckDBPyConnection", name: str, key: Sequence[str], where: str = "true") -> Iterator[Problem]:
    """Rows that are equal in a table's key; of two files the later one is named."""
    columns = _listed(key)
    sql = f"""SELECT last, first, count(*) FROM (
        SELECT max(filename) AS last, min(filename) AS first FROM "{name}" WHERE {where} GROUP BY {columns} HAVING count(*) > 1
        ) GROUP BY ALL ORDER BY ALL"""
    for last, first, count in connection.execute(sql).fetchall():
        other = "" if first == last else f", the other time in {first}"
        yield Problem(place(last), f"{count:,} rows are there twice by {', '.join(key)}{other}")


def _without(connection: "DuckDBPyConnection", name: str, reference: Reference) -> Iterator[Problem]:
    """Rows whose row in another table is missing."""
    columns = _listed(reference.columns)
    example = f"arg_min(concat_ws(' ', {columns}), ({columns}))"
    sql = f"""SELECT filename, count(*), {example} FROM (SELECT filename, {columns} FROM "{name}" WHERE {reference.where or "true"})
        ANTI JOIN (SELECT DISTINCT {columns} FROM "{reference.table}") USING ({columns}) GROUP BY filename ORDER BY filename"""
    for path, count, first in connection.execute(sql).fetchall():
        missing = f"{count:,} rows have no row in {reference.table} by {', '.join(reference.columns)}"
        yield Problem(place(path), f"{missing}, the first of them {first}")


def _in_two_splits(connection: "DuckDBPyConnection", names: Sequence[str]) -> Iterator[Problem]:
    """Sequences that are in more than one split, in one table or in several."""
    pairs = " UNION ".join(f'SELECT DISTINCT seq_id, split FROM "{name}"' for name in names)
    connection.execute(f"CREATE TEMP TABLE mixed AS SELECT seq_id FROM ({pairs}) GROUP BY seq_id HAVING count(*) > 1")
    for name in names:
        sql = f"""SELECT filename, count(DISTINCT seq_id), min(seq_id) FROM "{name}" SEMI JOIN mixed USING (seq_id)
            GROUP BY filename ORDER BY filename"""
        for path, count, first in connection.execute(sql).fetchall():
            yield Problem(place(path), f"{count:,} sequences are in more than one split, the first of them {first}")


def _documents_in_two_splits(connection: "DuckDBPyConnection") -> Iterator[Problem]:
    """Documents of the corpus that are in more than one split; one or two are cut on purpose, and those of an import are no documents."""
    sql = f"""WITH cut AS (SELECT doc_id FROM "{CORPUS.name}" WHERE token_ids IS NOT NULL GROUP BY doc_id HAVING count(DISTINCT split) > 1)
        SELECT filename, count(DISTINCT doc_id), min(doc_id) FROM "{CORPUS.name}" SEMI JOIN cut USING (doc_id)
        WHERE (SELECT count(DISTINCT doc_id) FROM "{CORPUS.name}") > {WHOLE_FROM} GROUP BY filename ORDER BY filename"""
    for path, count, first in connection.execute(sql).fetchall():
        yield Problem(place(path), f"{count:,} documents are in more than one split, the first of them {first}")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
