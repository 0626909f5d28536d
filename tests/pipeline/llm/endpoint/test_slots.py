"""Places in flight: never more than there are, earlier shards first, none lost to a cancelled wait."""

import asyncio
import random

from pipeline.execution.concurrency import TURN
from pipeline.llm.endpoint.slots import Slots


def test_no_more_work_is_in_flight_than_there_are_places() -> None:
    inside, most = 0, 0

    async def work(slots: Slots) -> None:
        nonlocal inside, most
        async with slots:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(random.random() / 1000)
            inside -= 1

    async def main() -> None:
        slots = Slots(3)
        await asyncio.gather(*(work(slots) for _ in range(50)))

    asyncio.run(main())
    assert (inside, most) == (0, 3)


def test_a_free_place_goes_to_the_earliest_shard_and_then_to_who_came_first() -> None:
    served: list[tuple[int, int]] = []

    async def work(slots: Slots, turn: int, number: int) -> None:
        TURN.set(turn)
        async with slots:
            served.append((turn, number))

    async def main() -> None:
        slots = Slots(1)
        async with slots:
            asked = [(2, 0), (0, 1), (1, 2), (0, 3), (2, 4)]
            tasks = [asyncio.create_task(work(slots, *one)) for one in asked]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert served == [(0, 1), (0, 3), (1, 2), (2, 0), (2, 4)]


def test_cancelled_waits_lose_no_place() -> None:
    async def hold(slots: Slots) -> None:
        async with slots:
            await asyncio.sleep(0)

    async def main() -> None:
        slots = Slots(2)
        for _ in range(200):
            tasks = [asyncio.create_task(hold(slots)) for _ in range(8)]
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            for task in random.sample(tasks, 4):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with slots, slots:  # both places are free again
            pass

    asyncio.run(asyncio.wait_for(main(), 30))
