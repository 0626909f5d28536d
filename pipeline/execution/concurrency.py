"""Work that waits for servers, side by side: many tasks in flight, results in order, earlier shards first."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from pipeline.llm.engine import EngineError

T = TypeVar("T")
R = TypeVar("R")

TURN: ContextVar[int] = ContextVar("turn", default=0)
"""Number of the shard that a task works for; where requests wait for a place, those of earlier shards go first."""


async def bounded_gather(work: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int) -> list[R]:
    """What `work` gives for each item, in order; at most `limit` are under way, and the next starts as one ends.

    The first ones start one by one, so that what has arrived in the meantime is not kept waiting by all of them.

    Raises:
        The first error of any of them, after the others were cancelled.
    """
    numbered = enumerate(items)
    results: dict[int, R] = {}

    async def worker() -> None:
        for number, item in numbered:
            results[number] = await work(item)

    workers: list[asyncio.Task[None]] = []
    try:
        for _ in range(min(limit, len(items))):
            workers.append(asyncio.create_task(worker()))
            await asyncio.sleep(0)
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[number] for number in range(len(items))]


async def gather_all(work: Iterable[Awaitable[T]]) -> list[T]:
    """All results, in order. No work is cancelled because other work failed, as every reply is paid for.

    Raises:
        When all has ended: the first error that concerns more than one request, else the first EngineError.
    """
    every = list(work)
    if len(every) == 1:  # the usual case, which needs no task
        return [await every[0]]
    found = await asyncio.gather(*every, return_exceptions=True)
    errors = [result for result in found if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, EngineError)):
        raise error
    return [result for result in found if not isinstance(result, BaseException)]


class TurnSemaphore:
    """A semaphore that lets the earliest shard in, by TURN, and within a shard the first to arrive."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._arrivals = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        entered = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (TURN.get(), next(self._arrivals), entered))
        try:
            await entered
        except asyncio.CancelledError:
            if entered.done() and not entered.cancelled():  # let in and cancelled at the same time
                self._let_in()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            entered = heappop(self._waiting)[2]
            if not entered.done():
                entered.set_result(None)
                return
        self._free += 1
