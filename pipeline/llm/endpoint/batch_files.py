"""Batches on disk: the requests of each before it is submitted, and its results from when they came until they are used.

FOLDER/NAME.jsonl holds the requests as they are uploaded, FOLDER/NAME.done the results; both appear whole or not at all.
NAME begins with the worker that made it. A request holds its prompt; the key for the endpoint is in neither file.
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.llm.endpoint.reply_files import read_other
from pipeline.storage.shards import atomic_path

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the result of one request is."""

    file: Path
    start: int
    length: int

    def read(self) -> Json:
        """The result."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            row: Json = json.loads(stream.read(self.length))
            return row


class BatchFiles:
    """The files of all workers' batches; a worker writes and deletes only its own."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder, self._worker = folder, worker

    def names(self) -> list[str]:
        """Batches that are not used up, this worker's first; those of workers that are at work now are left out."""
        found = sorted(file.stem for file in self._folder.glob("*.jsonl"))
        others = {name.rpartition(".")[0] for name in found} - {self._worker}
        busy = {worker for worker in others if is_at_work(self._folder.parent / f"{worker}.sqlite")}
        return sorted(
            (name for name in found if name.rpartition(".")[0] not in busy), key=lambda name: not self.own(name)
        )

    def own(self, name: str) -> bool:
        """Whether this worker made the batch."""
        return name.rpartition(".")[0] == self._worker

    def requests(self, name: str) -> Path:
        """The file to upload."""
        return self._folder / f"{name}.jsonl"

    def done(self, name: str) -> bool:
        """Whether its results have come."""
        return self._results(name).is_file()

    def write_requests(self, path: str, contents: Mapping[bytes, bytes]) -> str:
        """Put bodies, by key, into a file, and give it a name."""
        name = f"{self._worker}.{secrets.token_hex(8)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.requests(name)) as temporary, temporary.open("wb") as stream:
            for key, content in contents.items():
                head = {"custom_id": key.hex(), "method": "POST", "url": f"/v1{path}"}
                stream.write(json.dumps(head).encode()[:-1] + b', "body": ' + content + b"}\n")
        return name

    def read_requests(self, name: str) -> Iterator[tuple[bytes, str, Json]]:
        """(key, path, body) of each request; none where another worker has just deleted the file."""
        try:
            with self.requests(name).open("rb") as stream:
                for line in stream:
                    row = json.loads(line)
                    yield bytes.fromhex(row["custom_id"]), row["url"].removeprefix("/v1"), row["body"]
        except FileNotFoundError:
            return

    def write_results(self, name: str, contents: Iterable[bytes]) -> None:
        """Keep the files that an endpoint gave as one."""
        with atomic_path(self._results(name)) as temporary, temporary.open("wb") as stream:
            for content in contents:
                stream.write(content if content.endswith(b"\n") or not content else content + b"\n")

    def places(self, name: str) -> dict[bytes, Place]:
        """Where the result of each request is; requests without a usable one are missing."""
        found: dict[bytes, Place] = {}
        start = 0
        with self._results(name).open("rb") as stream:
            for line in stream:
                with suppress(ValueError, KeyError, TypeError):
                    found[bytes.fromhex(json.loads(line)["custom_id"])] = Place(self._results(name), start, len(line))
                start += len(line)
        return found

    def delete(self, name: str) -> None:
        """Forget a batch that is used up."""
        self.requests(name).unlink(missing_ok=True)
        self._results(name).unlink(missing_ok=True)

    def _results(self, name: str) -> Path:
        return self._folder / f"{name}.done"


def is_at_work(replies: Path) -> bool:
    """Whether a process has this file of a reply cache open."""
    return replies.is_file() and read_other(replies, lambda _: True) is None
