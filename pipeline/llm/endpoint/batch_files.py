"""Batches on disk and at the endpoint: requests written, submitted, found again and followed, results fetched.

FOLDER/NAME.jsonl holds the requests of a batch until their replies are in the response cache. NAME begins with the worker
that made it, and the batch at the endpoint carries it, so that the batch is found again whenever the process was killed. A
request holds its prompt; the key for the endpoint is in no file.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.llm.endpoint.client import ERRORS, Client
from pipeline.llm.endpoint.faults import Fault, NotFound, parsed_reply
from pipeline.llm.endpoint.reply_files import is_at_work
from pipeline.llm.endpoint.sender import Outgoing
from pipeline.llm.engine import EngineError
from pipeline.storage.atomic_files import atomic_path

T = TypeVar("T")
Json = dict[str, Any]

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
SEARCHED = 2_000
"""Batches, the newest first, among which one is looked for."""


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    quiet: float = 0.5
    """Without a further request before those that came are submitted."""
    poll: float = 2.0
    """Between the first questions whether a batch is done; the waits grow up to `longest`."""
    longest: float = 60.0


class RequestFiles:
    """The requests of batches whose replies are not all in the response cache yet."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder, self._worker = folder, worker

    def names(self) -> list[str]:
        """Batches of this worker, and of workers that are not at work now."""
        found = sorted(file.stem for file in self._folder.glob("*.jsonl"))
        others = {name.rpartition(".")[0] for name in found} - {self._worker}
        busy = {worker for worker in others if is_at_work(self._folder.parent / f"{worker}.sqlite")}
        return [name for name in found if name.rpartition(".")[0] not in busy]

    def path(self, name: str) -> Path:
        """The file to upload."""
        return self._folder / f"{name}.jsonl"

    def write(self, requests: Iterable[Outgoing]) -> str:
        """Put requests into a file, which appears whole or not at all, and give it a name."""
        name = f"{self._worker}.{secrets.token_hex(8)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path(name)) as temporary, temporary.open("wb") as stream:
            for request in requests:
                head = {"custom_id": request.key.hex(), "method": "POST", "url": f"/v1{request.ask.path}"}
                stream.write(json.dumps(head).encode()[:-1] + b', "body": ' + request.content + b"}\n")
        return name


class BatchInterface:
    """An endpoint's batches; calls are tried again, with growing waits, where it does not answer."""

    def __init__(self, client: Client, retries: int, timing: Timing, patience: float = 0.0) -> None:
        """patience: seconds for which an endpoint that is out of order is waited for, whatever `retries` says."""
        self._client, self._openai = client, client.openai
        self._retries, self._timing, self._patience = retries, timing, patience

    async def submit(self, requests: Path, path: str, run: str) -> str:
        """Upload and submit a file of requests, and give the batch's id. If that is lost, the file's name finds the batch.

        Raises:
            EngineError: the endpoint does not take the file.
            UserError: nothing can be submitted.
        """
        try:
            uploaded = await self._tried(lambda: self._openai.files.create(file=requests, purpose="batch"))
        except NotFound:
            raise UserError(
                f'{self._client.secrets.endpoint} has no batch interface; write mode = "live" for its engine'
            ) from None
        metadata = {"run": run[:512], "requests": requests.stem}

        async def create() -> str:
            if (found := await self.find(requests.stem)) is not None:  # by a try whose answer was lost
                return found
            url: Any = f"/v1{path}"
            batch = await self._openai.batches.create(
                completion_window="24h", endpoint=url, input_file_id=uploaded.id, metadata=metadata
            )
            return batch.id

        return await self._tried(create)

    async def find(self, name: str) -> str | None:
        """The id of the batch whose file of requests had this name; None where there is none."""

        async def search() -> str | None:
            seen = 0
            async for batch in self._openai.batches.list(limit=100):
                if (batch.metadata or {}).get("requests") == name:
                    return batch.id
                if (seen := seen + 1) >= SEARCHED:
                    break
            return None

        with contextlib.suppress(NotFound):
            return await self._tried(search)
        return None

    async def fetch(self, batch_id: str, file: Path) -> str:
        """Put the results of a batch into a file when it has ended, and say why there is none for a request."""
        wait = self._timing.poll
        file.unlink(missing_ok=True)
        try:
            while (batch := await self._tried(lambda: self._openai.batches.retrieve(batch_id))).status not in ENDED:
                await asyncio.sleep(wait)
                wait = min(1.5 * wait, self._timing.longest)
            for name in filter(None, (batch.output_file_id, batch.error_file_id)):
                await self._tried(partial(self._download, name, file))
        except NotFound:
            return "the endpoint does not know the batch any more"
        said = [error.message for error in (batch.errors.data if batch.errors else None) or () if error.message]
        return f"the batch {batch.status}: {said[0]}" if said else f"the batch {batch.status}"

    async def _download(self, name: str, file: Path) -> None:
        """Write a file of the endpoint behind what there is; after a break some of its lines come twice."""
        async with self._openai.files.with_streaming_response.content(name) as response:
            with file.open("ab") as stream:
                stream.write(b"\n")
                async for chunk in response.iter_bytes():
                    stream.write(chunk)

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        wait, said, number, outage = self._timing.poll, "", 0, False
        end = time.monotonic() + self._patience
        while number <= self._retries or (outage and time.monotonic() < end):
            if number:
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._timing.longest)
            number += 1
            try:
                return await call()
            except ERRORS as error:
                problem = self._client.problem(error)
            if isinstance(problem, EngineError):
                problem = EngineError(f"the batch interface refuses: {problem}")
            if not isinstance(problem, Fault):
                raise problem  # here, so that no request with its headers hangs on it
            wait, said, outage = max(wait, problem.wait or 0.0), str(problem), problem.outage
            if number == self._retries + 1 and outage and self._patience:
                tqdm.write(f"{self._client.secrets.endpoint} is out of order ({said}); waiting (engine.patience)")
        raise UserError(
            f"the batch interface of {self._client.secrets.endpoint} does not answer ({said}); "
            "what was submitted goes on there, and the same command fetches it"
        )


def read_rows(file: Path) -> Iterator[tuple[bytes, Json]]:
    """(key, row) of each line that can be read; none without a file, which another worker may just have deleted."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        for line in stream:
            with contextlib.suppress(Fault, ValueError, KeyError, TypeError):
                row = parsed_reply(line)
                yield bytes.fromhex(row["custom_id"]), row
