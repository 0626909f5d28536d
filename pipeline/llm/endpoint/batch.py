"""Sends requests through an endpoint's batch interface: files of many requests, answered within a day at a lower price."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipeline.config import LanguageModel
from pipeline.llm.endpoint.batch_calls import BatchCalls, Timing, failure
from pipeline.llm.endpoint.batch_files import BatchFiles, Json, Place
from pipeline.llm.endpoint.batch_lines import MOST_REQUESTS, Job, LineReader, Waiting, limit_of, next_group
from pipeline.llm.endpoint.faults import Fault
from pipeline.llm.endpoint.http import Connections
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.pot import Amount
from pipeline.llm.endpoint.replies import Answer, Replies
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.endpoint.sender import content_of, request_key, usage_of
from pipeline.llm.endpoint.sizes import PromptSizes, size_of
from pipeline.llm.engine import EngineError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_FACT = "batch."


class BatchSender:
    """Collects requests until none has come for a while, submits them, and answers when the batch is done.

    The requests are on disk before they are submitted, and the batch's id is in the reply cache before anything else is
    done. So after a kill at any moment the next run, of any number of workers, fetches what was submitted: by the id, or
    where the kill came before that was stored, by the name that the batch was given. Results are on disk too until each is in
    the reply cache. Requests that failed go into another batch.
    """

    def __init__(self, config: LanguageModel, replies: Replies, ledger: Ledger, timing: Timing | None = None) -> None:
        """
        Raises:
            UserError: an environment variable with a key or a header is not set.
        """
        self._config, self._replies, self._ledger, self._timing = config, replies, ledger, timing or Timing()
        self._secrets = Secrets.of(config)
        self._connections = Connections(self._secrets, config.timeout)
        self._calls = BatchCalls(self.client, self._secrets, config.model, config.retries, self._timing)
        self._files = BatchFiles(replies.folder / "batches", replies.worker)
        self._sizes = PromptSizes()
        self._reader = LineReader(self._secrets, config.model, self._sizes)
        self._waiting: dict[bytes, Waiting] = {}
        self._pending: list[bytes] = []
        self._jobs: dict[bytes, Job] = {}
        self._adopted: dict[bytes, Amount] = {}
        self._results: dict[bytes, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_up: asyncio.Task[None] | None = None
        self._collecting = False

    @property
    def client(self) -> "AsyncOpenAI":
        """For what is no request to a model."""
        return self._connections.client

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        attempt: int = 0,
        *,
        tokens_at_most: int,
        keep: Callable[[Json], Json] = dict,
    ) -> Answer:
        """What `keep` leaves of the reply; see `pipeline.llm.endpoint.asks.Asks.ask`."""
        content = content_of(self._config, body)
        key = request_key(self._secrets.endpoint, path, content, attempt)
        if self._taking_up is None:
            self._taking_up = asyncio.create_task(self._take_up())
        await asyncio.shield(self._taking_up)
        if (known := self._replies.get(key)) is not None:
            return known
        if key not in self._waiting:
            reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            reply.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting[key] = Waiting(path, content, size_of(path, body), tokens_at_most, keep, reply)
            self._run(self._start(key), {key})
        return await asyncio.shield(self._waiting[key].reply)

    async def aclose(self) -> None:
        """Give connections back; batches go on at the endpoint."""
        tasks = [*self._tasks, *([self._taking_up] if self._taking_up else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connections.aclose()

    async def _take_up(self) -> None:
        """Go on with the batches of an earlier run."""
        for name in self._files.names():
            job = Job(name, self._files.own(name))
            for key, path, body in self._files.read_requests(name):
                await asyncio.sleep(0)
                if self._replies.get(key) is None and key not in self._jobs:
                    job.left.add(key)
                    self._jobs[key] = job
                    most = self._sizes.at_most(size_of(path, body)), limit_of(body)
                    self._adopted[key] = await self._ledger.reserve(*most)
            if self._files.done(name):
                await self._deliver(job)
            elif job.left:
                self._run(self._go_on(job), job.left, job)
            else:
                self._drop(job)

    async def _go_on(self, job: Job) -> None:
        fact = self._replies.get_fact(_FACT + job.name)
        batch_id = fact["id"] if fact else await self._calls.find(job.name)
        if batch_id is None:  # it was never submitted
            self._release(job)
            return
        if fact is None:
            self._replies.put_fact(_FACT + job.name, {"id": batch_id})
        await self._follow(job, batch_id)

    async def _start(self, key: bytes) -> None:
        """Use the result, wait for the batch that holds the request, or put it into the next one."""
        waiting = self._waiting[key]
        if key in self._results:
            self._finish(key, self._results.pop(key).read())
        elif key in self._jobs:
            if (error := self._jobs[key].error) is not None:
                raise error
            waiting.reserved = self._adopted.pop(key, None)
        else:
            waiting.reserved = await self._ledger.reserve(self._sizes.at_most(waiting.size), waiting.tokens_at_most)
            self._pending.append(key)
            if not self._collecting:
                self._collecting = True
                self._run(self._collect(), set())

    async def _collect(self) -> None:
        """Submit what is pending whenever nothing more comes."""
        try:
            while self._pending:
                count = 0
                while count < len(self._pending) < MOST_REQUESTS:
                    count = len(self._pending)
                    await asyncio.sleep(self._timing.quiet)
                keys, self._pending = next_group(self._pending, self._waiting)
                job = Job("", own=True, left=set(keys))
                self._jobs |= dict.fromkeys(keys, job)
                self._run(self._submit(job, keys), job.left, job)
        finally:
            self._collecting = False

    async def _submit(self, job: Job, keys: list[bytes]) -> None:
        path, run = self._waiting[keys[0]].path, self._replies.folder.parent.name
        contents = {key: self._waiting[key].content for key in keys}
        job.name = await asyncio.to_thread(self._files.write_requests, path, contents)
        try:
            batch_id = await self._calls.submit(self._files.requests(job.name), path, run, job.name)
        except EngineError:
            self._drop(job)
            raise
        self._replies.put_fact(_FACT + job.name, {"id": batch_id})
        tqdm.write(f"batch {batch_id} of {len(keys):,} requests is submitted; it may take up to a day")
        await self._follow(job, batch_id)

    async def _follow(self, job: Job, batch_id: str) -> None:
        batch = await self._calls.ended(batch_id)
        said = "the endpoint does not know the batch any more" if batch is None else failure(batch)
        contents = [] if batch is None else await self._calls.results(batch)
        await asyncio.to_thread(self._files.write_results, job.name, contents)
        await self._deliver(job, said)

    async def _deliver(self, job: Job, said: str = "no result") -> None:
        """Use the results that somebody waits for, keep the places of the others, and ask anew for what has none."""
        places = await asyncio.to_thread(self._files.places, job.name)
        for key in list(job.left):
            await asyncio.sleep(0)
            if key not in places:
                self._finish(key, {"error": {"message": said}})
            elif key in self._waiting:
                self._finish(key, places[key].read())
            else:
                self._hold(key, places[key])
        if not job.left:
            self._drop(job)

    def _hold(self, key: bytes, place: Place) -> None:
        """Settle a result that nobody has asked for yet in this run; a failure is as good as none."""
        row = place.read()
        response = row.get("response") or {}
        if response.get("status_code") != 200:
            self._finish(key, row)
            return
        read, written = usage_of(response.get("body"))
        self._ledger.settle(self._adopted.pop(key), read or 0, written or 0)
        self._results[key] = place

    def _finish(self, key: bytes, row: Json) -> None:
        """Store a reply and hand it over, or try again, or give up."""
        waiting = self._waiting.get(key)
        job = self._jobs.pop(key)
        if waiting is None:
            self._ledger.settle(self._adopted.pop(key), 0, 0)
        else:
            self._use(key, waiting, row)
        job.left.discard(key)
        if not job.left:
            self._drop(job)

    def _use(self, key: bytes, waiting: Waiting, row: Json) -> None:
        outcome, read, written = self._reader.read(waiting, row)
        cost, model = self._ledger.cost(read, written), self._config.model
        if waiting.reserved is not None:
            self._ledger.settle(waiting.reserved, read, written)
            waiting.reserved = None
        if isinstance(outcome, Answer):
            self._replies.put(key, outcome, model=model, seconds=0.0, cost=cost)
            self._waiting.pop(key).reply.set_result(outcome)
            return
        if read or written:
            why = outcome.words if isinstance(outcome, Fault) else type(outcome).__name__
            self._replies.put_lost(read, written, model=model, why=why, cost=cost)
        if isinstance(outcome, Fault):
            waiting.tries, waiting.said = waiting.tries + 1, outcome.words
            if waiting.tries <= self._config.retries:
                self._run(self._again(key), {key})
                return
            outcome = EngineError(f"no usable reply in {waiting.tries} tries; the last one: {outcome.words}")
        self._waiting.pop(key).reply.set_exception(outcome)

    async def _again(self, key: bytes) -> None:
        await asyncio.sleep(self._timing.poll)
        await self._start(key)

    def _release(self, job: Job) -> None:
        """Treat the requests of a batch that was never submitted as new ones."""
        for key in list(job.left):
            del self._jobs[key]
            waiting = self._waiting.get(key)
            reserved = waiting.reserved if waiting else self._adopted.pop(key)
            if reserved is not None:
                self._ledger.settle(reserved, 0, 0)
            if waiting:
                waiting.reserved = None
                self._run(self._start(key), {key})
        job.left.clear()
        self._drop(job)

    def _drop(self, job: Job) -> None:
        """Forget a batch that is used up."""
        for key in job.left:
            self._jobs.pop(key, None)
        if job.own:
            self._files.delete(job.name)
            self._replies.drop_fact(_FACT + job.name)

    def _run(self, work: Coroutine[Any, Any, None], keys: set[bytes], job: Job | None = None) -> None:
        """Work in the background; what it raises goes to those who wait for its requests, now or later."""
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is None:
                return
            if job is not None:
                job.error = error
            for key in list(keys):
                waiting = self._waiting.pop(key, None)
                if waiting is not None and not waiting.reply.done():
                    if waiting.reserved is not None:
                        self._ledger.settle(waiting.reserved, 0, 0)
                    waiting.reply.set_exception(error)

        task.add_done_callback(ended)
