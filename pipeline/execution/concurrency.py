"""Work that waits for servers, side by side: many tasks in flight, results in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

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
