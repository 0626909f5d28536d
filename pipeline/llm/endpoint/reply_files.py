"""The sqlite files of the reply cache: one is this process's own, the others are looked into for a moment at a time."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pipeline.errors import UserError

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds for which an own file is waited for that another process looks into."""
TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    cost REAL, model TEXT, seconds REAL, time REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, model TEXT, why TEXT, time REAL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, body TEXT NOT NULL);
"""
TOTALS = """
SELECT coalesce(sum(read), 0), coalesce(sum(written), 0), coalesce(sum(cost), 0.0),
    coalesce(sum(read) FILTER (WHERE cost IS NULL), 0), coalesce(sum(written) FILTER (WHERE cost IS NULL), 0)
FROM (SELECT prompt_tokens AS read, completion_tokens AS written, cost FROM replies
    UNION ALL SELECT prompt_tokens, completion_tokens, cost FROM lost)
"""
Totals = tuple[int, int, float, int, int]
"""Tokens read and written, the cost as far as it is known, and the tokens whose cost is not."""


def open_own(file: Path) -> sqlite3.Connection:
    """A file that no other process can open until it is closed; a damaged one is set aside and a new one begun.

    The write-ahead log makes each statement safe against a kill without waiting for the disk. Held exclusively it needs
    no memory shared between processes, so that it works on the file systems of clusters.

    Raises:
        UserError: another process has it, or it cannot be written.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _opened(file)
        except sqlite3.DatabaseError as error:
            if not _is_busy(error):
                if isinstance(error, sqlite3.OperationalError):
                    raise UserError(f"{file}: {error}; see to free space and the right to write there") from None
                _set_aside(file, error)
            elif time.monotonic() > deadline:
                raise UserError(
                    f"another process works on {file}; let it finish, or give this one another SHARD"
                ) from None
        time.sleep(0.02)


def read_other(file: Path, read: Callable[[sqlite3.Connection], T]) -> T | None:
    """What `read` finds in another worker's file; None where its worker has it open, or it had to be set aside."""
    other = sqlite3.connect(file, timeout=1.0, isolation_level=None)
    try:
        other.executescript(TABLES)
        return read(other)
    except sqlite3.OperationalError as error:
        if not _is_busy(error):
            tqdm.write(f"{file} is left out: {error}")
    except sqlite3.DatabaseError as error:
        _set_aside(file, error)
    finally:
        other.close()
    return None


def _opened(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0.0, isolation_level=None)
    try:
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {setting}")
        connection.executescript(TABLES)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _set_aside(file: Path, error: Exception) -> None:
    """Rename a damaged file and its log, so that nothing of it is thrown away."""
    for ending in ("", "-wal", "-shm"):
        part = file.with_name(file.name + ending)
        if part.exists():
            part.rename(part.with_name(part.name + ".corrupt"))
    tqdm.write(f"{file} is damaged ({error}) and now called {file.name}.corrupt; its replies will be asked for again")
