"""The reply cache: every reply is in it before it is used, so that nothing is paid for twice."""

import json
import sqlite3
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.llm.endpoint.pot import Amount
from pipeline.llm.endpoint.reply_files import TOTALS, Totals, open_own, read_other

Json = dict[str, Any]
Price = Callable[[int, int], float]
_REPLY = "SELECT body, prompt_tokens, completion_tokens FROM replies WHERE key = ?"


@dataclass(frozen=True)
class Answer:
    """What is kept of a reply, and the tokens that the endpoint counted (their upper bound where it does not say)."""

    body: Json
    prompt_tokens: int
    completion_tokens: int


class Replies:
    """The replies in FOLDER/WORKER.sqlite, which this process alone writes, and those that other workers left beside it.

    Each `put` is on disk as far as a kill of the process is concerned before it returns. A file that another process
    works on at the moment is left alone; a damaged one is renamed to NAME.corrupt and missed. Facts are small JSON
    documents by name, such as what the probe found.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        """
        Args:
            worker: names this process among those that share the run's work, such as 0-of-1.

        Raises:
            UserError: another process has the worker's file, or it cannot be written.
        """
        self.folder, self.worker = folder, worker
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{worker}.sqlite"
        self._own = open_own(self._file)
        self._elsewhere: dict[bytes, Path] = {}
        self._facts: dict[str, str] = {}
        self._others: dict[str, Totals] = {}
        for file in sorted(folder.glob("*.sqlite")):
            if file != self._file:
                self._survey(file)

    def get(self, key: bytes) -> Answer | None:
        """The reply to a request, if one was stored by this worker or, before this one started, by another."""
        row = self._run(_REPLY, (key,)).fetchone()
        if row is None and key in self._elsewhere:
            row = read_other(self._elsewhere[key], lambda other: other.execute(_REPLY, (key,)).fetchone())
        return None if row is None else _answer(row)

    def put(self, key: bytes, answer: Answer, *, model: str, seconds: float, cost: float | None) -> None:
        """Store a reply; a former one with the same key gives way.

        Raises:
            UserError: the disk is full.
        """
        body = zlib.compress(json.dumps(answer.body, separators=(",", ":")).encode(), 1)
        self._run(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, body, answer.prompt_tokens, answer.completion_tokens, cost, model, seconds, time.time()),
        )

    def put_lost(self, prompt_tokens: int, completion_tokens: int, *, model: str, why: str, cost: float | None) -> None:
        """Count tokens that an endpoint may have counted for a reply that did not arrive or was of no use."""
        row = (prompt_tokens, completion_tokens, cost, model, why, time.time())
        self._run("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", row)

    def get_fact(self, name: str) -> Json | None:
        """A fact of this worker, or one that another worker had found when this one started."""
        row = self._run("SELECT body FROM facts WHERE name = ?", (name,)).fetchone()
        text = row[0] if row is not None else self._facts.get(name)
        return None if text is None else json.loads(text)

    def put_fact(self, name: str, fact: Json) -> None:
        """Store a fact; a former one of the name gives way."""
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(fact)))

    def drop_fact(self, name: str) -> None:
        """Forget a fact of this worker."""
        self._run("DELETE FROM facts WHERE name = ?", (name,))

    def own_facts(self, prefix: str) -> dict[str, Json]:
        """This worker's facts whose names begin with `prefix`."""
        rows = self._run(
            "SELECT name, body FROM facts WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)
        )
        return {name: json.loads(body) for name, body in rows}

    def spent(self, price: Price) -> dict[str, Amount]:
        """What each worker has spent, but for those at work now; `price` of tokens read and written fills unknown costs."""
        own = {self.worker: self._run(TOTALS).fetchone()}
        return {
            worker: Amount(read + written, cost + price(unpriced_read, unpriced_written))
            for worker, (read, written, cost, unpriced_read, unpriced_written) in (self._others | own).items()
        }

    def close(self) -> None:
        """Let go of the file; nothing is lost without it."""
        self._own.close()

    def _survey(self, file: Path) -> None:
        """Note what another worker left: the keys, the facts and the totals."""
        found = read_other(file, _contents)
        if found is not None:
            keys, facts, self._others[file.stem] = found
            self._elsewhere |= dict.fromkeys(keys, file)
            self._facts |= facts

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        problem = ""
        try:
            return self._own.execute(statement, values)
        except sqlite3.OperationalError as error:
            problem = str(error)
        except sqlite3.DatabaseError as error:
            problem = f"{error}, so it will be set aside"
        raise UserError(f"{self._file}: {problem}; see to free space and a sound disk, then run the same command again")


def _answer(row: tuple[Any, ...]) -> Answer | None:
    """The reply in a row; None where its bytes are damaged."""
    try:
        return Answer(json.loads(zlib.decompress(row[0])), row[1], row[2])
    except (zlib.error, ValueError):
        return None


def _contents(file: sqlite3.Connection) -> tuple[list[bytes], dict[str, str], Totals]:
    keys = [key for (key,) in file.execute("SELECT key FROM replies")]
    facts = dict(file.execute("SELECT name, body FROM facts").fetchall())
    return keys, facts, file.execute(TOTALS).fetchone()
