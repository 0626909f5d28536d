"""Places in flight at an endpoint: work for earlier shards goes first."""

import asyncio
from heapq import heappop, heappush
from itertools import count

from pipeline.execution.concurrency import TURN


class Slots:
    """`async with slots:` holds one of `size` places.

    Who waits gets a free one in the order of `pipeline.execution.concurrency.TURN`, then of arrival. A cancelled wait takes no place.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._arrivals = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (TURN.get(), next(self._arrivals), place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give()

    def _give(self) -> None:
        while self._waiting:
            place = heappop(self._waiting)[2]
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
