"""Replies of a run whose folder is in an object store: databases cannot be written there, so they are on this machine, with copies there.

Each worker keeps its replies in a file of its own on the disk, as it always does. What it stores there goes, some seconds later, into a
copy too, a database in pieces of a few megabytes that are put into the store. Other machines fetch these. Who loses a machine loses
the replies of its last seconds.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

from tqdm import tqdm

from pipeline.errors import ClaimLost
from pipeline.llm.endpoint.reply_files import TABLES
from pipeline.storage.atomic_files import atomic_path, publish_once
from pipeline.storage.stores import ask, is_remote, put, scratch

SECONDS = 5.0
"""Between two copies."""
PIECE = 8 * 2**20
"""Bytes after which a piece is closed and the next one begun."""
OPEN = "open"
"""Stands for the number of the piece that still grows."""
Statement = tuple[str, tuple[Any, ...]]


def local_replies(folder: Path) -> Path:
    """The folder of the databases, for that of the replies of a run; what other machines left in a store is fetched into it."""
    if not is_remote(folder):
        return folder
    local = scratch(folder)
    own, names = _machine(local), set()
    for path in folder.glob("*.sqlite"):
        names.add(path.name)
        fetched = local / path.name
        if path.name.startswith(own) or (fetched.exists() and _number(path) != OPEN):
            continue
        with suppress(FileNotFoundError), atomic_path(fetched) as temporary:
            ask(cast(Any, path).fs.get_file, cast(Any, path).path, str(temporary))
    for fetched in local.glob(f"*--{OPEN}.sqlite"):
        if fetched.name not in names:  # it is closed, and fetched under its number
            fetched.unlink(missing_ok=True)
    return local


def reply_files(folder: Path) -> list[Path]:
    """All databases of replies of a run, those of this machine's copies too."""
    local = local_replies(folder)
    return sorted([*local.glob("*.sqlite"), *local.glob("copies/*.sqlite")])


def put_back(folder: Path, files: Iterable[Path]) -> None:
    """Have the pieces in the store be as those on this machine, which were changed."""
    for file in files if is_remote(folder) else ():
        if "--" in file.name:
            put(folder / file.name, file, new=False)


class Copies(threading.Thread):
    """Copies what a worker stores into the run's folder in a store."""

    def __init__(self, folder: Path, worker: str) -> None:
        """folder: of the replies, in the store."""
        super().__init__(name="copies of replies", daemon=True)
        local = scratch(folder)
        self._folder, self._name = folder, f"{_machine(local)}--{worker}--"
        self._local = local / "copies"
        self._local.mkdir(parents=True, exist_ok=True)
        self._waiting: SimpleQueue[Statement] = SimpleQueue()
        self._ended, self._told = threading.Event(), False
        self.start()

    def copied(self) -> set[bytes]:
        """The keys of the replies that are in copies."""
        found: set[bytes] = set()
        for file in self._pieces():
            with closing(sqlite3.connect(file)) as piece:
                piece.executescript(TABLES)
                found.update(key for (key,) in piece.execute("SELECT key FROM replies"))
        return found

    def add(self, statement: str, values: tuple[Any, ...]) -> None:
        """Repeat a statement in the copy, some seconds later."""
        self._waiting.put((statement, values))

    def run(self) -> None:
        """Copy now and then, and all that is left in the end."""
        ended = False
        while not ended:
            ended = self._ended.wait(SECONDS)
            try:
                if self._write() or ended:
                    self._send()
            except (OSError, sqlite3.Error) as error:
                if not self._told:
                    self._told = True
                    tqdm.write(
                        f"replies could not be copied ({error}); until they are, they are in {self._local.parent} alone"
                    )

    def end(self) -> None:
        """Copy what is left."""
        self._ended.set()
        self.join()

    def _write(self) -> bool:
        """Put what waits into the open piece, and close it where it is long; returns whether there was something."""
        if self._waiting.empty():
            return False
        piece = self._piece(OPEN)
        with closing(sqlite3.connect(piece)) as copy, copy:
            copy.executescript(TABLES)
            for statement, values in self._drained():
                copy.execute(statement, values)
        if piece.stat().st_size > PIECE:
            piece.rename(self._piece(f"{len(self._pieces()):04d}"))
        return True

    def _send(self) -> None:
        """Put the pieces into the store that are not there yet as they are here."""
        for piece in self._pieces():
            is_open = _number(piece) == OPEN
            if is_open or not (self._folder / piece.name).exists():
                put(self._folder / piece.name, piece, new=False)
                if not is_open:
                    (self._folder / self._piece(OPEN).name).unlink(missing_ok=True)

    def _pieces(self) -> list[Path]:
        return sorted(self._local.glob(f"{self._name}*.sqlite"))

    def _drained(self) -> Iterator[Statement]:
        with suppress(Empty):
            while True:
                yield self._waiting.get_nowait()

    def _piece(self, number: str) -> Path:
        return self._local / f"{self._name}{number}.sqlite"


def _number(path: Path) -> str:
    return path.stem.rpartition("--")[2]


def _machine(local: Path) -> str:
    """A name for what works in a local folder, which no other machine has."""
    file = local / "machine"
    with suppress(ClaimLost):
        if not file.exists():
            publish_once(file, secrets.token_hex(6).encode())
    return file.read_text(encoding="ascii")
