"""Work side by side: in order, never more than the limit, and nothing is left running."""

import asyncio

import pytest

from pipeline.execution.concurrency import bounded_gather


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
