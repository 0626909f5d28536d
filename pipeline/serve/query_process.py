"""SQL from whoever it comes: DuckDB without files, network, extensions and settings, and the process that answers one query of a
server's user with it.

It is a program of its own, started by path, and imports nothing of the pipeline: `locked_query` hands it all that it needs. The command
`query` has the locked connection too, in its own process and without limits.
Reads {"tables": {name: [file]}, "sql", "rows", "seconds"} in JSON from standard input, and writes the answer to standard output.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow.dataset as ds

LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else a name that is no table is looked up among the variables of this program
    "temp_directory": "",
    "lock_configuration": "true",
}
LIMITS: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "1GB", "threads": "2"}
MEMORY = 4 * 2**30
"""Bytes of memory that the process may take; DuckDB does not count all that it takes."""
MOST_BYTES = 8 * 2**20
"""Of an answer, about."""
BATCH = 100
"""Rows fetched at a time."""
TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "json_each", "json_tree"}
"""Functions that a query may read from. Others look at files, or at DuckDB itself."""


def limit_process(seconds: int) -> None:
    """Bound memory and processor time, and forbid writing to files, where the system can do so."""
    with contextlib.suppress(ImportError):
        import resource

        bounds = {
            resource.RLIMIT_DATA: MEMORY,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_CPU: 4 * seconds,
        }
        for kind, most in bounds.items():
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def locked_connection(
    tables: Mapping[str, ds.Dataset], limits: dict[str, str | bool | int | float | list[str]] | None = None
) -> duckdb.DuckDBPyConnection:
    """DuckDB with a view for each table and nothing else; it cannot be unlocked."""
    connection = duckdb.connect(":memory:", config=LOCKED | (limits or {}))
    for name, table in tables.items():
        connection.register(name, table)
    return connection


def checked_table(files: list[str]) -> ds.Dataset:
    """Parquet files, or their addresses in a store, read with their checksums."""
    checked = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    if "://" not in files[0]:
        return ds.dataset(files, format=checked)
    import fsspec

    store, _ = fsspec.url_to_fs(files[0])
    return ds.dataset([store._strip_protocol(file) for file in files], format=checked, filesystem=store)


def answer(tables: dict[str, list[str]], sql: str, rows: int) -> dict[str, Any]:
    """Columns, types and rows of a query, or {"error": message}."""
    try:
        connection = locked_connection({name: checked_table(files) for name, files in tables.items()}, LIMITS)
        if message := refusal(connection, sql):
            return {"error": message}
        result = connection.execute(sql)
        description = result.description or []
        found: list[Any] = []
        size = 0
        for row in _rows(result):
            if len(found) == rows or size > MOST_BYTES:
                break
            values = [json_value(value) for value in row]
            size += len(json.dumps(values))
            found.append(values)
        else:
            size = -1
    except (duckdb.Error, OSError, ValueError, MemoryError, RecursionError) as error:
        return {"error": str(error) or type(error).__name__}
    columns = [{"name": column[0], "type": str(column[1])} for column in description]
    return {"columns": columns, "rows": found, "truncated": size >= 0}


def _rows(result: Any) -> Iterator[Any]:
    while batch := result.fetchmany(BATCH):
        yield from batch


def refusal(connection: Any, sql: str) -> str | None:
    """Why a text is not run: it is not one SELECT, or it reads from a function that it may not."""
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()[0])
    if tree["error"]:
        return f"{tree['error_message']} Only one SELECT statement is run here."
    if len(tree["statements"]) != 1:
        return f"{len(tree['statements'])} statements; only one SELECT statement is run here"
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict) and node.get("type") == "TABLE_FUNCTION":
            name = node["function"].get("function_name", "")
            if name.lower() not in TABLE_FUNCTIONS:
                return f"{name}() may not be read from here; a query sees the tables of the run alone"
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return None


def json_value(value: Any) -> Any:
    """A value in JSON: what is no finite number is null, what JSON has no word for is text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): json_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(one) for one in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return json_value(float(value))
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def main() -> None:
    """Answer the query on standard input."""
    asked = json.load(sys.stdin)
    limit_process(asked["seconds"])
    json.dump(answer(asked["tables"], asked["sql"], asked["rows"]), sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()
