"""The response cache: every reply is in it before it is used, so that no reply is paid for twice.

Each worker has one SQLite file in the run's folder. It holds that file open and alone; the files of other workers it opens
for a moment at a time, where nobody works on them.

What is stored outlives a kill of the process at once. A second later, at most, it is on the disk and outlives a power cut
too: a thread sees to that, so that no request waits for the disk and many replies share one write.
"""

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UserError
from pipeline.llm.endpoint.reply_files import earlier_files, open_own, read_other
from pipeline.llm.endpoint.stored_replies import Copies, local_replies, put_back, reply_files
from pipeline.storage.stores import is_remote

T = TypeVar("T")
Json = dict[str, Any]
Totals = tuple[int, int, float, int, int]
"""Tokens read and written, the cost as far as it is known, and the tokens read and written whose cost is not."""

SYNC_SECONDS = 0.5
"""Between two writes to the disk."""
LONG = 1_000
"""Bytes from which on a reply is compressed."""
ROOM = 2**20
"""Bytes set aside on the disk: a full disk is noticed before anything is paid for, and the replies in flight then fit in."""
TOTALS = """
SELECT coalesce(sum(read), 0), coalesce(sum(written), 0), coalesce(sum(cost), 0.0),
    coalesce(sum(read) FILTER (WHERE cost IS NULL), 0), coalesce(sum(written) FILTER (WHERE cost IS NULL), 0)
FROM (SELECT prompt_tokens AS read, completion_tokens AS written, cost FROM replies
    UNION ALL SELECT prompt_tokens, completion_tokens, cost FROM lost)
"""
FORGET = """
INSERT INTO lost SELECT prompt_tokens, completion_tokens, cost, model, 'of no use', time FROM replies WHERE key = ?1;
DELETE FROM replies WHERE key = ?1
"""
PUT = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
PUT_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
REPLY = "SELECT body, prompt_tokens, completion_tokens FROM replies WHERE key = ?"


@dataclass(frozen=True)
class Answer:
    """What is kept of a reply, and the tokens that the endpoint counted (their upper bound where it does not say)."""

    body: Json
    prompt_tokens: int
    completion_tokens: int


class ResponseCache:
    """The replies in FOLDER/WORKER.sqlite, which this process alone writes, and those that other workers left beside it.

    When a method returns, what it stored survives a kill of the process. A damaged file is renamed to NAME.corrupt, and its
    replies are asked for again.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        """
        Args:
            folder: of the replies of a run, perhaps in a store.
            worker: names this process among those that share the run's work, such as 0-of-1.

        Raises:
            UserError: another process has the worker's file, or it cannot be written.
        """
        self._kept, self.run, self.worker = folder, folder.parent.name, worker
        self.folder = folder = local_replies(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{worker}.sqlite"
        self._own = open_own(self._file)
        self._problem = ""
        self._elsewhere: dict[bytes, Path] = {}
        self._facts: dict[str, str] = {}
        self._others: dict[str, Totals] = {}
        self._looked: dict[Path, tuple[int, bool]] = {}
        for file in sorted(folder.glob("*.sqlite")):
            if file != self._file and (found := read_other(file, _contents)) is not None:
                keys, facts, self._others[file.stem] = found
                self._elsewhere |= dict.fromkeys(keys, file)
                self._facts |= facts
        self._room = folder / f"{worker}.room"
        try:
            self._room.write_bytes(os.urandom(ROOM))
            self._own.execute("DELETE FROM facts WHERE name = 'room'")  # so that there is a log
        except (OSError, sqlite3.DatabaseError) as error:
            self._room.unlink(missing_ok=True)
            self._own.close()
            raise UserError(self._advice(str(error))) from None
        self._disk = _Disk(folder / f"{worker}.sqlite-wal")
        self._copies = Copies(self._kept, worker) if is_remote(self._kept) else None
        if self._copies:
            self._copy_rest(self._copies)

    def get(self, key: bytes) -> Answer | None:
        """The reply to a request, if this worker stored it, or another one did before this one started."""
        row = self._run(REPLY, (key,)).fetchone()
        if row is None and (known := self._elsewhere.get(key)):
            for file in (*earlier_files(known), known):  # where it is moved when its worker starts again
                if row := read_other(file, lambda other: other.execute(REPLY, (key,)).fetchone()):
                    break
        try:
            return row and Answer(json.loads(row[0] if row[0][:1] == b"{" else zlib.decompress(row[0])), row[1], row[2])
        except (zlib.error, ValueError):  # its bytes are damaged
            return None

    def put(self, key: bytes, answer: Answer, *, model: str, seconds: float, cost: float | None) -> None:
        """Store a reply; an earlier one with the same key gives way.

        Raises:
            UserError: the disk is full.
        """
        body = json.dumps(answer.body).encode()
        row = (
            key,
            body if len(body) < LONG else zlib.compress(body, 1),
            answer.prompt_tokens,
            answer.completion_tokens,
            cost,
            model,
            seconds,
            time.time(),
        )
        self._write(PUT, row)
        self._disk.due.set()

    def mark_useless(self, keys: Iterable[bytes]) -> None:
        """Remember replies that could not be used; `forget_useless` takes them away."""
        for key in keys:
            self._write("INSERT OR IGNORE INTO useless VALUES (?)", (key,))

    def put_lost(self, prompt_tokens: int, completion_tokens: int, *, model: str, why: str, cost: float | None) -> None:
        """Count tokens that an endpoint may have counted for a reply that did not arrive or was of no use."""
        row = (prompt_tokens, completion_tokens, cost, model, why, time.time())
        self._write("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", row)

    def get_fact(self, name: str) -> Json | None:
        """A small document, such as what the probe found: this worker's, or what another one knew when this one started."""
        row = self._run("SELECT body FROM facts WHERE name = ?", (name,)).fetchone()
        text = row[0] if row is not None else self._facts.get(name)
        return None if text is None else json.loads(text)

    def put_fact(self, name: str, fact: Json) -> None:
        """Store a fact; an earlier one of the name gives way."""
        self._write(PUT_FACT, (name, json.dumps(fact)))

    def look_again(self, busy: Container[str]) -> None:
        """Learn of replies that other workers have left since this one started, but for those at work (`busy`)."""
        for file in local_replies(self._kept).glob("*.sqlite"):
            if file == self._file or file.stem in busy or self._looked.get(file) == _state(file):
                continue
            if (found := read_other(file, _contents)) is not None:
                self._elsewhere |= dict.fromkeys(found[0], file)
                self._looked[file] = _state(file)

    def totals(self) -> dict[str, Totals]:
        """What each worker has taken, but for those at work now."""
        return self._others | {self.worker: self._run(TOTALS).fetchone()}

    def check(self) -> None:
        """Raises UserError from the first failed write on: a reply that cannot be stored must not be asked for."""
        if self._problem or self._disk.problem:
            raise UserError(self._problem or self._advice(self._disk.problem))

    def close(self) -> None:
        """Let go of the file; nothing is lost without it."""
        self._disk.end()
        if self._copies:
            self._copies.end()
        self._room.unlink(missing_ok=True)
        self._own.close()

    def _copy_rest(self, copies: Copies) -> None:
        """Copy what an earlier process of this worker stored, and did not come to copy before it was killed."""
        there = copies.copied()

        def copy(other: sqlite3.Connection) -> None:
            for row in other.execute("SELECT * FROM replies"):
                if row[0] not in there:
                    copies.add(PUT, row)
            for row in other.execute("SELECT * FROM facts"):
                copies.add(PUT_FACT, row)

        for file in earlier_files(self._file):
            read_other(file, copy)
        copy(self._own)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        self._run(statement, values)
        if self._copies:
            self._copies.add(statement, values)

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._own.execute(statement, values)
        except sqlite3.DatabaseError as error:
            self._problem = self._problem or self._advice(str(error))
            if not self._room.exists():
                raise UserError(self._problem) from None
        self._room.unlink()
        return self._run(statement, values)

    def _advice(self, error: str) -> str:
        return f"{self._file}: {error}; free some space and check the disk, then run the same command again"


class _Disk(threading.Thread):
    """Has what was written to a file reach the disk, SYNC_SECONDS later at most."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)
        self.due, self.problem = threading.Event(), ""
        self._file, self._ended = file, False
        self.start()

    def run(self) -> None:
        try:
            with self._file.open("rb") as stream:
                while not self._ended:
                    self.due.wait()
                    self.due.clear()
                    os.fsync(stream.fileno())
                    time.sleep(0 if self._ended else SYNC_SECONDS)
        except OSError as error:
            self.problem = str(error)

    def end(self) -> None:
        """Write what is due; SQLite itself does the same when the file is closed."""
        self._ended = True
        self.due.set()


def forget_useless(folder: Path) -> None:
    """Take away the replies of all workers that could not be used, so that others are asked for in their place.

    What they took still counts. Files that a worker has open are left alone.
    """
    files = reply_files(folder)
    marked = [read_other(file, lambda other: other.execute("SELECT key FROM useless").fetchall()) for file in files]
    keys = {key for found in marked for (key,) in found or ()}

    def forget(other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        for key in keys:
            for statement in FORGET.split(";"):
                other.execute(statement, (key,))
        if None not in marked:
            other.execute("DELETE FROM useless")
        other.execute("COMMIT")

    for file in files if keys else ():
        read_other(file, forget)
    if keys:
        put_back(folder, files)


def _state(file: Path) -> tuple[int, bool]:
    return file.stat().st_mtime_ns, file.with_name(f"{file.name}-wal").exists()


def _contents(file: sqlite3.Connection) -> tuple[list[bytes], dict[str, str], Totals]:
    """The keys of the replies, the facts and the totals."""
    keys = [key for (key,) in file.execute("SELECT key FROM replies")]
    return keys, dict(file.execute("SELECT name, body FROM facts").fetchall()), file.execute(TOTALS).fetchone()
