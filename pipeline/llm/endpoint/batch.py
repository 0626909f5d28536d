"""Carries requests through an endpoint's batch interface: many at once, answered within a day at a lower price."""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from pipeline.llm.endpoint.batch_files import BatchInterface, Json, RequestFiles, Timing, failure
from pipeline.llm.endpoint.budget import Reservation, prompt_bound
from pipeline.llm.endpoint.faults import QUOTED, Fault, NotFound, embedded_status, read_refusal
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Endpoint, Outcome, Outgoing, tokens_of
from pipeline.llm.engine import EngineError

MOST_REQUESTS = 50_000
MOST_BYTES = 150_000_000
"""Of one batch; OpenAI takes 200 MB."""

Failed = dict[bytes, Json]
"""Results that are no replies, by key."""
Job = asyncio.Task[Failed | None]
"""Ends when the replies of a batch are in the response cache; gives None where the batch was never submitted."""


@dataclass
class Group:
    """Requests to one path that are collected for a batch."""

    requests: dict[bytes, Outgoing] = field(default_factory=dict)
    size: int = 0

    def takes(self, request: Outgoing) -> bool:
        """Whether the batch has room for one more."""
        fits = self.size + len(request.content) <= MOST_BYTES and len(self.requests) < MOST_REQUESTS
        return fits or not self.requests


class BatchCarrier:
    """Collects requests until none has come for a while, submits them, and answers when the batch is done.

    Requests are on disk before they are submitted, and are deleted when all replies are in the response cache. So after a
    kill at any moment the next run, of any number of workers, fetches what was submitted: it finds the batch at the endpoint
    by the name of its file. The cache keeps replies that nobody has asked for yet. Requests that failed go into another batch.
    """

    def __init__(self, endpoint: Endpoint, timing: Timing | None = None) -> None:
        self._endpoint, self._timing = endpoint, timing or Timing()
        cache = endpoint.cache
        self._files = RequestFiles(cache.folder / "batches", cache.worker)
        self._interface = BatchInterface(endpoint.client, endpoint.config.retries, self._timing)
        self._open: dict[str, tuple[Group, Job]] = {}
        self._jobs: dict[bytes, Job] = {}
        self._reserved: dict[bytes, Reservation] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._taking_up: asyncio.Task[None] | None = None

    async def fetch(self, outgoing: Outgoing) -> Answer:
        """Ask in one batch after the other until a reply can be used."""
        if self._taking_up is None:
            self._taking_up = self._run(self._take_up())
        await asyncio.shield(self._taking_up)
        tries = self._endpoint.config.retries + 1
        outcome: Outcome = Fault("not sent")
        for number in range(tries):
            if number:
                await asyncio.sleep(self._timing.poll)
            outcome = await self._try(outgoing)
            if isinstance(outcome, Answer):
                return outcome
            if not isinstance(outcome, Fault):
                raise outcome
        raise EngineError(f"no usable reply in {tries} tries; the last one: {outcome}")

    async def aclose(self) -> None:
        """Stop waiting; batches go on at the endpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work in the background; who waits for it learns of its errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take_up(self) -> None:
        """Go on with the batches of an earlier run, and set aside what they take."""
        endpoint, cache = self._endpoint, self._endpoint.cache
        for name in self._files.names():
            left = []
            for key, body in self._files.read(name):
                if cache.get(key) is None and cache.get_result(key) is None and key not in self._jobs:
                    left.append(key)
                    self._reserved[key] = await endpoint.budget.reserve(prompt_bound(body), limit_of(body))
            if left:
                self._jobs |= dict.fromkeys(left, self._run(self._resume(name, left)))
            else:
                self._files.delete(name)

    async def _try(self, outgoing: Outgoing) -> Outcome:
        """What a batch gives for a request: the one that holds it, or another one that is still collecting."""
        cache, key = self._endpoint.cache, outgoing.key
        failed: Failed | None = {}
        while (whole := cache.get_result(key)) is None:
            if key not in self._jobs:
                self._reserved[key] = await self._endpoint.reserve(outgoing)
                self._jobs[key] = self._collect(outgoing)
            failed = await asyncio.shield(self._jobs[key])
            del self._jobs[key]
            if failed is not None and key in failed:
                return self._refused(failed[key])
        try:
            outcome: Outcome = self._endpoint.read(outgoing, whole.body, (whole.prompt_tokens, whole.completion_tokens))
        except Fault as fault:
            outcome = fault
        with cache.all_or_none():
            self._endpoint.store(outgoing, outcome, (0, 0))
            cache.drop_result(key)
        return outcome

    def _collect(self, outgoing: Outgoing) -> Job:
        """Put a request into the next batch to its path."""
        path = outgoing.ask.path
        if path not in self._open or not self._open[path][0].takes(outgoing):
            group = Group()
            self._open[path] = group, self._run(self._submit(group, path))
        group, job = self._open[path]
        group.requests[outgoing.key] = outgoing
        group.size += len(outgoing.content) + 200
        return job

    async def _submit(self, group: Group, path: str) -> Failed | None:
        """Wait until no more requests come, then submit them and fetch the results."""
        count = 0
        while count < len(group.requests) < MOST_REQUESTS:
            count = len(group.requests)
            await asyncio.sleep(self._timing.quiet)
        if self._open.get(path, (None,))[0] is group:
            del self._open[path]
        keys, name = list(group.requests), ""
        try:
            name = await asyncio.to_thread(self._files.write, group.requests.values())
            run = self._endpoint.cache.folder.parent.name
            batch_id = await self._interface.submit(self._files.path(name), path, run, name)
            tqdm.write(f"batch {batch_id} of {len(keys):,} requests is submitted; it may take up to a day")
            return await self._fetch(name, batch_id, keys)
        except EngineError:
            self._files.delete(name)
            raise
        finally:
            self._release(keys)

    async def _resume(self, name: str, keys: list[bytes]) -> Failed | None:
        """Go on with a batch of an earlier run."""
        try:
            batch_id = await self._interface.find(name)
            if batch_id is not None:
                return await self._fetch(name, batch_id, keys)
            self._files.delete(name)
            return None
        finally:
            self._release(keys)

    async def _fetch(self, name: str, batch_id: str, keys: list[bytes]) -> Failed:
        """Wait for a batch, store its replies, and give what failed."""
        try:
            batch = await self._interface.ended(batch_id)
            said = failure(batch)
            results = dict(await self._interface.fetch_results(batch, self._files.path(name).with_suffix(".part")))
        except NotFound:
            said, results = "the endpoint does not know the batch any more", {}
        failed = {key: {"error": {"message": said}} for key in keys}
        with self._endpoint.cache.all_or_none():
            for key in keys:
                if key in results and _is_reply(results[key]):
                    self._store(key, results[key]["response"]["body"])
                    del failed[key]
        self._files.delete(name)
        return failed | {key: results[key] for key in failed if key in results}

    def _store(self, key: bytes, reply: Json) -> None:
        reserved = self._reserved.pop(key)
        read, written = tokens_of(reply)
        tokens = read or reserved.most[0], reserved.most[1] if written is None else written
        self._endpoint.budget.settle(reserved, tokens)
        self._endpoint.cache.put_result(key, Answer(reply, *tokens), self._endpoint.config.cost(*tokens))

    def _release(self, keys: list[bytes]) -> None:
        """Give back what was set aside for requests without a reply."""
        for key in keys:
            if (reserved := self._reserved.pop(key, None)) is not None:
                self._endpoint.budget.settle(reserved, (0, 0))

    def _refused(self, row: Json) -> Outcome:
        """What a result means that is no reply."""
        response, error = row.get("response"), row.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        secrets, model = self._endpoint.client.secrets, self._endpoint.config.model
        if not isinstance(response, dict) or not isinstance(status, int):
            words = error.get("message") or error.get("code") if isinstance(error, dict) else None
            return Fault(secrets.redact(str(words or "no result"))[:QUOTED])
        body = response.get("body")
        status = status if status != 200 else embedded_status(body) or 500
        return read_refusal(status, {}, json.dumps(body).encode(), secrets, model)


def limit_of(body: Json) -> int:
    """The tokens that the replies to a request may have."""
    prompts = body.get("prompt")
    several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0) * int(body.get("n") or 1) * several


def _is_reply(row: Json) -> bool:
    response = row.get("response")
    if not isinstance(response, dict) or response.get("status_code") != 200:
        return False
    return isinstance(response.get("body"), dict) and embedded_status(response["body"]) is None
