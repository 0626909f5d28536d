"""Sends requests through an endpoint's batch interface: many at once, answered within a day at a lower price."""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.llm.endpoint.batch_files import BatchInterface, Json, RequestFiles, Timing, read_rows
from pipeline.llm.endpoint.budget import Tokens, most_tokens
from pipeline.llm.endpoint.faults import QUOTED, Fault, embedded_status, read_refusal
from pipeline.llm.endpoint.sender import Endpoint, Outcome, Outgoing, Sender
from pipeline.llm.engine import EngineError

MOST_REQUESTS = 50_000
MOST_BYTES = 150_000_000
"""Of one batch; OpenAI takes 200 MB."""


@dataclass
class Batch:
    """Requests to one path, collected or submitted."""

    name: str = ""
    """Of its file; empty while it is not written."""
    open: dict[bytes, Tokens] = field(default_factory=dict)
    """Keys of the requests whose replies are not stored, and what is reserved for each."""
    asked: dict[bytes, tuple[Outgoing, asyncio.Future[Outcome]]] = field(default_factory=dict)
    """Those of them that somebody waits for."""
    size: int = 0
    work: asyncio.Task[None] | None = None


class BatchSender(Sender):
    """Collects requests until none has come for a while, submits them, and answers when the batch is done.

    Requests are on disk before they are submitted, until their replies are in the response cache. So after a kill at any
    moment the next run, of any number of workers, fetches what was submitted: it finds the batch at the endpoint by the name
    of its file, and reads the results as often as another request of the batch is asked for. Requests that failed go into
    another batch.
    """

    def __init__(self, endpoint: Endpoint, timing: Timing | None = None) -> None:
        super().__init__(endpoint)
        cache = endpoint.cache
        self._timing, self._run = timing or Timing(), cache.run
        self._files = RequestFiles(cache.folder / "batches", cache.worker)
        config = endpoint.config
        self._interface = BatchInterface(endpoint.client, config.retries, self._timing, config.patience)
        self._collecting: dict[str, Batch] = {}
        self._batches: dict[bytes, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_up: asyncio.Task[None] | None = None

    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """Ask in the batch that holds the request, or in the next one."""
        if self._taking_up is None:
            self._taking_up = self._begin(self._take_up())
        await asyncio.shield(self._taking_up)
        if number:
            await asyncio.sleep(self._timing.poll)
        if outgoing.key not in self._batches:
            await self._endpoint.budget.reserve(outgoing.most)
            self._collect(outgoing)
        batch, answered = self._batches[outgoing.key], asyncio.get_running_loop().create_future()
        batch.asked[outgoing.key] = outgoing, answered
        if batch.work is None:
            batch.work = self._begin(self._work(batch, outgoing.ask.path))
        outcome: Outcome = await answered
        return outcome

    async def aclose(self) -> None:
        """Stop waiting; batches go on at the endpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take_up(self) -> None:
        """Go on with the batches of an earlier run, and set aside what they take."""
        for name in self._files.names():
            batch = Batch(name)
            for key, row in read_rows(self._files.path(name)):
                if self._endpoint.cache.get(key) is None and key not in self._batches:
                    batch.open[key] = most_tokens(row["body"])
                    await self._endpoint.budget.reserve(batch.open[key])
                    self._batches[key] = batch
            if not batch.open:
                self._files.path(name).unlink(missing_ok=True)

    def _collect(self, outgoing: Outgoing) -> None:
        """Put a request into the next batch to its path."""
        path = outgoing.ask.path
        batch = self._collecting.setdefault(path, Batch())
        if len(batch.open) >= MOST_REQUESTS or batch.size + len(outgoing.content) > MOST_BYTES:
            batch = self._collecting[path] = Batch()
        self._batches[outgoing.key] = batch
        batch.open[outgoing.key] = outgoing.most
        batch.size += len(outgoing.content)

    async def _work(self, batch: Batch, path: str) -> None:
        """Answer what is asked of a batch, until nothing is."""
        try:
            while batch.asked:
                await self._answer(batch, path)
        except (EngineError, UserError) as error:
            for _, future in batch.asked.values():
                if not future.done():
                    future.set_exception(error)
            batch.asked.clear()
        finally:
            batch.work = None

    async def _answer(self, batch: Batch, path: str) -> None:
        """Submit a batch unless it was, wait for it, and hand out the results that were asked for until then."""
        count = 0
        while count < len(batch.asked) < MOST_REQUESTS:
            count = len(batch.asked)
            await asyncio.sleep(self._timing.quiet)
        batch_id = await self._interface.find(batch.name) if batch.name else await self._submit(batch, path)
        file = self._files.path(batch.name).with_suffix(".part")
        said = "it was not submitted" if batch_id is None else await self._interface.fetch(batch_id, file)
        due = set(batch.asked)
        for key, row in read_rows(file):
            if key in batch.asked:
                self._hand_out(batch, key, row)
                await asyncio.sleep(0)
        for key in due.intersection(batch.asked):
            self._hand_out(batch, key, {"error": {"message": said}})
        file.unlink(missing_ok=True)
        if batch_id is None or not batch.open:
            self._forget(batch)

    async def _submit(self, batch: Batch, path: str) -> str:
        """Submit what was collected, and give the batch's id."""
        if self._collecting.get(path) is batch:
            del self._collecting[path]
        batch.name = await asyncio.to_thread(self._files.write, [outgoing for outgoing, _ in batch.asked.values()])
        try:
            batch_id = await self._interface.submit(self._files.path(batch.name), path, self._run)
        except EngineError:
            self._forget(batch)
            raise
        tqdm.write(f"batch {batch_id} of {len(batch.open):,} requests is submitted; it may take up to a day")
        return batch_id

    def _hand_out(self, batch: Batch, key: bytes, row: Json) -> None:
        """Store what a result is, and give it to who waits for it."""
        outgoing, future = batch.asked.pop(key)
        outcome = self._outcome(outgoing, row)
        self._endpoint.settle(outgoing, outcome)
        del self._batches[key], batch.open[key]
        if not future.done():
            future.set_result(outcome)

    def _forget(self, batch: Batch) -> None:
        """Give up a batch, of which nothing is left or which was not submitted."""
        for key, most in batch.open.items():
            self._endpoint.budget.settle(most, (0, 0))
            del self._batches[key]
        batch.open.clear()
        self._files.path(batch.name).unlink(missing_ok=True)

    def _outcome(self, outgoing: Outgoing, row: Json) -> Outcome:
        """What a line of results means."""
        response, error = row.get("response"), row.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        client = self._endpoint.client
        if not isinstance(response, dict) or not isinstance(status, int):
            words = error.get("message") or error.get("code") if isinstance(error, dict) else None
            return Fault(client.secrets.redact(str(words or "no result"))[:QUOTED])
        body = response.get("body")
        if status == 200 and (status := embedded_status(body) or 200) == 200:
            try:
                return self._endpoint.read(outgoing, body)
            except Fault as fault:
                return fault
        return read_refusal(status, {}, json.dumps(body).encode(), client.secrets, self._endpoint.config.model)
