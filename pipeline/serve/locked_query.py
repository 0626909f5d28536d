"""SQL of whoever uses a server: only reading, only the tables of the run, with limits of time, memory and rows.

DuckDB cannot be interrupted in everything that it does (constants are worked out before a query starts), so each query has a
process of its own, which is killed when its time is over.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.results.run_folder import RunFolder, damage_named

PROGRAM = Path(__file__).with_name("query_process.py")
SECONDS = 10
"""That a query may take."""
ROWS = 1_000
"""Returned unless said."""
MOST_ROWS = 10_000
LONGEST = 20_000
"""Characters of a query."""
_turns = threading.BoundedSemaphore(2)
"""Queries at a time."""


def run_locked(run: RunFolder, sql: str, rows: int = ROWS, seconds: int = SECONDS) -> dict[str, Any]:
    """The first rows of a SELECT over the tables of a run: {"columns": [{name, type}], "rows": [[...]], "truncated"}.

    Raises:
        UserError: it is no SELECT, DuckDB does not accept it, or it takes too long or too much memory.
    """
    if not sql.strip() or len(sql) > LONGEST:
        raise UserError(
            f"a query has 1 to {LONGEST:,} characters, this one has {len(sql):,}; pass it as sql=SELECT ..."
        )
    tables = {name: [str(path.resolve()) for path in run.files(name)] for name in run.tables}
    asked = json.dumps({"tables": tables, "sql": sql, "rows": rows, "seconds": seconds})
    if not _turns.acquire(timeout=seconds):
        raise UserError("others are querying; ask again")
    try:
        command = [sys.executable, "-P", str(PROGRAM)]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UserError(f"the query took longer than {seconds} s; ask for less, or use: make query") from None
    finally:
        _turns.release()
    if done.returncode:
        raise UserError("the query was stopped, as it took too much memory; ask for less, or use: make query")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        with damage_named(run.root):
            raise UserError(f"{found['error']}\nTables of this run: {', '.join(tables)}")
    return found
