"""The budget is never passed, whatever the order of requests and however many workers share it."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.budget import TOKENS_A_MESSAGE, TOKENS_A_PROMPT, SharedBudget, most_tokens
from pipeline.llm.endpoint.response_cache import ResponseCache
from tests.tiers import examples

ENGINE = LanguageModel(model="m", base_url="http://host/v1", price_in=1.0, price_out=4.0)


def opened(folder: Path, worker: str = "0-of-1", spent: int = 0, **limits: Any) -> tuple[SharedBudget, ResponseCache]:
    """A worker's budget, and its cache, which has tokens more of what was spent."""
    cache = ResponseCache(folder, worker)
    if spent:
        cache.put_lost(spent, 0, model="m", why="earlier", cost=None)
    return SharedBudget(Budget(**limits), ENGINE, cache), cache


def test_costs_follow_from_prices_and_are_unknown_without() -> None:
    assert ENGINE.cost(1_000_000, 500_000) == 3.0
    assert LanguageModel(model="m", price_in=1.0).cost(1, 1) is None


def test_without_a_limit_nothing_waits(tmp_path: Path) -> None:
    async def main() -> None:
        free, _ = opened(tmp_path)
        for _ in range(100):
            await free.reserve((10**9, 10**9))
        for _ in range(100):
            free.settle((10**9, 10**9), (1, 1))
        free.close()

    asyncio.run(main())


@pytest.mark.parametrize("limits", [{"max_tokens_total": 10_000}, {"max_cost": 0.02}])
def test_requests_in_flight_never_pass_the_limit_and_nearly_all_of_it_is_used(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    spent = [0, 0.0]

    async def ask(book: SharedBudget) -> None:
        await book.reserve((200, 60))
        await asyncio.sleep(random.random() / 1000)
        read, written = random.randrange(100, 200), random.randrange(60)
        spent[0] += read + written
        spent[1] += (read + 4 * written) / 1e6
        book.settle((200, 60), (read, written))

    async def main() -> list[BaseException | None]:
        book, _ = opened(tmp_path, **limits)
        return await asyncio.gather(*(ask(book) for _ in range(200)), return_exceptions=True)

    stopped = [error for error in asyncio.run(main()) if error]
    assert stopped
    assert all(isinstance(error, UserError) for error in stopped)
    ((name, limit),) = limits.items()
    used, most = (spent[0], 300) if name == "max_tokens_total" else (spent[1], 440e-6)
    assert used <= limit < used + most
    assert name in str(stopped[0])
    assert "raise it" in str(stopped[0])


def test_what_was_spent_before_counts_and_a_raised_limit_goes_on(tmp_path: Path) -> None:
    _, other = opened(tmp_path, "1-of-2", spent=50)
    other.close()
    book, cache = opened(tmp_path, spent=900, max_tokens_total=1000)
    words = r"50 of budget.max_tokens_total = 1,000 is left, and the next request could take 60"
    with pytest.raises(UserError, match=words):
        asyncio.run(book.reserve((50, 10)))
    cache.close()
    raised, _ = opened(tmp_path, max_tokens_total=1010)
    asyncio.run(raised.reserve((50, 10)))


def test_cancelled_waits_reserve_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        book, _ = opened(tmp_path, max_tokens_total=100)
        await book.reserve((80, 0))
        waiting = asyncio.create_task(book.reserve((50, 0)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        book.settle((80, 0), (40, 0))
        await book.reserve((60, 0))

    asyncio.run(main())


def test_workers_that_start_die_and_come_back_in_any_order_keep_one_limit(tmp_path: Path) -> None:
    draw, steps = random.Random(0), examples(5_000)
    limit, spent = 30 * steps, {f"{worker}-of-4": 0 for worker in range(4)}
    at_work: dict[str, tuple[SharedBudget, ResponseCache]] = {}

    async def main() -> None:
        for _ in range(steps):
            worker = draw.choice([*spent])
            if worker not in at_work:
                at_work[worker] = opened(tmp_path, worker, max_tokens_total=limit)
            elif draw.random() < 0.05:
                book, cache = at_work.pop(worker)
                if draw.random() < 0.5:
                    book.close()  # else it was killed
                cache.close()
            else:
                book, cache = at_work[worker]
                try:
                    await book.reserve((250, 50))
                except UserError:
                    continue
                took = draw.randrange(50, 300)
                spent[worker] += took
                cache.put_lost(took, 0, model="m", why="", cost=None)
                book.settle((250, 50), (took, 0))
            assert sum(spent.values()) <= limit

    asyncio.run(main())
    assert sum(spent.values()) > 0.95 * limit


def test_a_prompt_has_no_more_tokens_than_bytes() -> None:
    body = {"messages": [{"role": "user", "content": "\u00e9" * 500}, {"role": "user", "content": "abc"}]}
    assert most_tokens(body)[0] == 1003 + 2 * TOKENS_A_MESSAGE + TOKENS_A_PROMPT


def test_every_form_of_prompt_is_counted() -> None:
    for prompt, tokens in (([1, 2, 3], 3), ([[1, 2], [3]], 3), (["ab", "c"], 3), ("abc", 3), ([], 0)):
        assert most_tokens({"prompt": prompt})[0] == tokens + TOKENS_A_PROMPT
    assert most_tokens({"messages": [], "response_format": {"schema": "x" * 100}})[0] > 100 + TOKENS_A_PROMPT


def test_every_form_of_limit_is_counted() -> None:
    for fields, tokens in (({"max_tokens": 3}, 3), ({"max_completion_tokens": 3, "n": 2}, 6), ({}, 0)):
        assert most_tokens({"messages": [], **fields})[1] == tokens
    assert most_tokens({"prompt": [[1], [2, 3]], "max_tokens": 3})[1] == 6


def test_once_a_request_was_refused_no_smaller_one_is_sent_either(tmp_path: Path) -> None:
    async def main() -> None:
        book, _ = opened(tmp_path, max_tokens_total=1_000)
        with pytest.raises(UserError, match="max_tokens_total = 1,000"):
            await book.reserve((1_200, 0))
        with pytest.raises(UserError, match="max_tokens_total = 1,000"):
            await book.reserve((1, 1))

    asyncio.run(main())
