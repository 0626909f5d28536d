"""Work side by side: in order, never more than the limit, and nothing is left running."""

import asyncio
import random

import pytest

from pipeline.execution.concurrency import TURN, TurnSemaphore, bounded_gather


def test_results_come_in_the_order_of_the_items_and_the_limit_holds() -> None:
    running = most = 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (7 * item % 5))
        running -= 1
        return item * item

    assert asyncio.run(bounded_gather(work, range(40), 4)) == [item * item for item in range(40)]
    assert most == 4


def test_the_next_item_starts_as_soon_as_one_ends() -> None:
    gate = asyncio.Event()
    ended: list[int] = []

    async def work(item: int) -> None:
        if item == 0:
            await gate.wait()
        ended.append(item)
        if item == 9:
            gate.set()

    asyncio.run(bounded_gather(work, range(10), 2))
    assert ended == [*range(1, 10), 0]


def test_an_error_cancels_the_others_before_it_is_raised() -> None:
    cancelled: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError("bad")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(bounded_gather(work, range(5), 3))
    assert sorted(cancelled) == [0, 2]


def test_no_items_are_no_results() -> None:
    async def work(item: int) -> int:
        return item

    assert asyncio.run(bounded_gather(work, [], 3)) == []


def test_no_more_work_is_in_flight_than_there_are_places() -> None:
    inside, most = 0, 0

    async def work(places: TurnSemaphore) -> None:
        nonlocal inside, most
        async with places:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(random.random() / 1000)
            inside -= 1

    async def main() -> None:
        places = TurnSemaphore(3)
        await asyncio.gather(*(work(places) for _ in range(50)))

    asyncio.run(main())
    assert (inside, most) == (0, 3)


def test_a_free_place_goes_to_the_earliest_shard_and_then_to_who_came_first() -> None:
    served: list[tuple[int, int]] = []

    async def work(places: TurnSemaphore, turn: int, number: int) -> None:
        TURN.set(turn)
        async with places:
            served.append((turn, number))

    async def main() -> None:
        places = TurnSemaphore(1)
        async with places:
            asked = [(2, 0), (0, 1), (1, 2), (0, 3), (2, 4)]
            tasks = [asyncio.create_task(work(places, *one)) for one in asked]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert served == [(0, 1), (0, 3), (1, 2), (2, 0), (2, 4)]


def test_cancelled_waits_lose_no_place() -> None:
    async def hold(places: TurnSemaphore) -> None:
        async with places:
            await asyncio.sleep(0)

    async def main() -> None:
        places = TurnSemaphore(2)
        for _ in range(200):
            tasks = [asyncio.create_task(hold(places)) for _ in range(8)]
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            for task in random.sample(tasks, 4):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with places, places:  # both places are free again
            pass

    asyncio.run(asyncio.wait_for(main(), 30))
