"""What is asked of an endpoint's batch interface: submit, find, follow, fetch."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from openai import APIError, APIStatusError, AsyncOpenAI
from openai.types import Batch

from pipeline.errors import UserError
from pipeline.llm.endpoint.asks import NotFound
from pipeline.llm.endpoint.faults import QUOTED, Fault, read_refusal
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.engine import EngineError

T = TypeVar("T")

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
SEARCHED = 2_000
"""Batches, the newest first, among which one is looked for whose id was lost."""
GROWTH = 1.5


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    quiet: float = 0.5
    """Without a further request before those that came are submitted."""
    poll: float = 2.0
    """Between the first questions whether a batch is done; the waits grow up to `longest`."""
    longest: float = 60.0


class BatchCalls:
    """Calls that are tried again, with growing waits, where the endpoint does not answer."""

    def __init__(self, client: AsyncOpenAI, secrets: Secrets, model: str, retries: int, timing: Timing) -> None:
        self._client, self._secrets, self._model = client, secrets, model
        self._retries, self._timing = retries, timing

    async def submit(self, requests: Path, path: str, run: str, name: str) -> str:
        """Upload and submit a file of requests, and give the batch's id; `name` finds it again if the answer is lost.

        Raises:
            EngineError: the endpoint does not take the file.
            UserError: nothing can be submitted.
        """
        try:
            uploaded = await self._tried(lambda: self._client.files.create(file=requests, purpose="batch"))
        except NotFound:
            raise UserError(
                f'{self._secrets.endpoint} has no batch interface; write mode = "live" for its engine'
            ) from None
        endpoint: Literal["/v1/chat/completions", "/v1/completions"]
        endpoint = "/v1/chat/completions" if path == "/chat/completions" else "/v1/completions"
        tried = False

        async def create() -> str:
            nonlocal tried
            if tried and (found := await self.find(name)) is not None:
                return found
            tried = True
            batch = await self._client.batches.create(
                completion_window="24h",
                endpoint=endpoint,
                input_file_id=uploaded.id,
                metadata={"run": run[:512], "requests": name},
            )
            return batch.id

        return await self._tried(create)

    async def find(self, name: str) -> str | None:
        """The id of the batch that was submitted under a name; None where there is none."""

        async def search() -> str | None:
            seen = 0
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get("requests") == name:
                    return batch.id
                if (seen := seen + 1) >= SEARCHED:
                    break
            return None

        try:
            return await self._tried(search)
        except NotFound:
            return None

    async def ended(self, batch_id: str) -> Batch | None:
        """The batch when nothing of it is left to be done; None where the endpoint does not know it any more."""
        wait = self._timing.poll
        while True:
            try:
                batch = await self._tried(lambda: self._client.batches.retrieve(batch_id))
            except NotFound:
                return None
            if batch.status in ENDED:
                return batch
            await asyncio.sleep(wait)
            wait = min(GROWTH * wait, self._timing.longest)

    async def results(self, batch: Batch) -> list[bytes]:
        """The files with the replies and with the errors."""
        names = [name for name in (batch.output_file_id, batch.error_file_id) if name]
        return [(await self._tried(partial(self._client.files.content, name))).content for name in names]

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        wait = self._timing.poll
        said = ""
        for number in range(self._retries + 1):
            if number:
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._timing.longest)
            try:
                return await call()
            except (APIError, ValueError) as error:
                problem = self._read(error)
            if isinstance(problem, Exception):
                raise problem  # here, so that no request with its headers hangs on it
            wait, said = max(wait, problem.wait or 0.0), problem.words
        raise UserError(
            f"the batch interface of {self._secrets.endpoint} does not answer ({said}); "
            "what was submitted goes on there, and the same command fetches it"
        )

    def _read(self, error: Exception) -> Fault | Exception:
        if not isinstance(error, APIStatusError):
            return Fault(self._secrets.redact(f"{type(error).__name__}: {error}")[:QUOTED])
        headers: dict[str, Any] = {name.lower(): value for name, value in error.response.headers.items()}
        found = read_refusal(error.status_code, headers, error.response.content, self._secrets, self._model)
        if isinstance(found, EngineError):
            return EngineError(f"the batch interface refuses: {found}")
        return found


def failure(batch: Batch) -> str:
    """Why a batch has no results, in the endpoint's words."""
    said = [error.message for error in (batch.errors.data if batch.errors else None) or () if error.message]
    return f"the batch {batch.status}: {said[0]}" if said else f"the batch {batch.status}"
