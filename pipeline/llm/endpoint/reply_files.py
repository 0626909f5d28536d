"""The SQLite files of replies: a worker's own, held alone, and those of other workers; a damaged one is set aside."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_path

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""Time for which a worker waits for its file while another process looks into it."""
SETTINGS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 10000")
"""Of the file; the last one is the pages after which the log is copied into it, for which requests wait."""
TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    cost REAL, model TEXT, seconds REAL, time REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, model TEXT, why TEXT, time REAL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS useless (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""

HELD = "SELECT count(*), coalesce(max(time), 0) FROM replies"


def read_other(file: Path, read: Callable[[sqlite3.Connection], T]) -> T | None:
    """What `read` finds in another worker's file; None where its worker has it open, or it had to be set aside."""
    other = sqlite3.connect(file, timeout=BUSY_SECONDS / 50, isolation_level=None)
    try:
        other.executescript(TABLES)
        return read(other)
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            tqdm.write(f"{file} is left out: {error}")
    except sqlite3.DatabaseError as error:
        set_aside(file, error)
    finally:
        other.close()
    return None


def is_at_work(file: Path) -> bool:
    """Whether a process has this worker's file open."""
    return file.is_file() and read_other(file, lambda _: True) is None


def open_own(file: Path) -> sqlite3.Connection:
    """A file that no other process can open until it is closed; a damaged one is set aside and a new one begun.

    Replies that it holds by now are moved into a file of their own, so that workers which start meanwhile can read them.

    The write-ahead log makes each statement safe against a kill without waiting for the disk. Held exclusively it needs
    no memory shared between processes, so it works on the file systems of clusters.

    Raises:
        UserError: another process has it, or it cannot be written.
    """
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        connection.executescript(TABLES)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict == "ok":
            with suppress(sqlite3.OperationalError, UserError):  # on a full disk they stay where they are
                _move_replies(connection, file)
            return connection
        error = sqlite3.DatabaseError(verdict)
    except sqlite3.DatabaseError as found:
        error = found
    connection.close()
    if is_busy(error):
        raise UserError(f"another process works on {file}; let it finish, or give this one another SHARD")
    if isinstance(error, sqlite3.OperationalError):
        raise UserError(f"{file}: {error}; see to free space and the right to write there")
    set_aside(file, error)
    return open_own(file)


def earlier_files(file: Path) -> list[Path]:
    """The files of replies that a worker stored in earlier lives, NAME.NUMBER.sqlite; nobody writes them any more."""
    found = ((other, other.stem.removeprefix(f"{file.stem}.")) for other in file.parent.glob(f"{file.stem}.*.sqlite"))
    return [other for _, other in sorted((int(number), other) for other, number in found if number.isdecimal())]


def _move_replies(own: sqlite3.Connection, file: Path) -> None:
    """A process that is killed in the middle leaves them in both files, and the next one removes them here."""
    held = own.execute(HELD).fetchone()
    if not any(held):
        return
    earlier = earlier_files(file)
    if not earlier or read_other(earlier[-1], lambda other: other.execute(HELD).fetchone()) != held:
        with atomic_path(file.with_name(f"{file.stem}.{len(earlier) + 1}.sqlite")) as temporary:
            own.execute("VACUUM INTO ?", (str(temporary),))
    own.executescript("BEGIN; DELETE FROM replies; DELETE FROM lost; DELETE FROM useless; COMMIT")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process has the file open."""
    return getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def set_aside(file: Path, error: Exception) -> None:
    """Rename a damaged file and its log, so that nothing of it is thrown away."""
    for ending in ("", "-wal", "-shm"):
        part = file.with_name(file.name + ending)
        if part.exists():
            part.rename(part.with_name(part.name + ".corrupt"))
    tqdm.write(f"{file} is damaged ({error}) and now called {file.name}.corrupt; its replies will be asked for again")
