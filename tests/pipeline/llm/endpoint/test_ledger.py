"""The budget is never passed, whatever the order of requests and however many workers share it."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Budget
from pipeline.errors import UserError
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.pot import Amount, Pot
from pipeline.llm.endpoint.sizes import KNOWN_FROM, TOKENS_A_MESSAGE, TOKENS_A_PROMPT, PromptSizes, size_of


def ledger(folder: Path, worker: str = "0-of-1", spent: dict[str, Amount] | None = None, **limits: Any) -> Ledger:
    budget = Budget(**limits)
    return Ledger(budget, 1.0, 4.0, Pot(folder, worker, budget, spent or {worker: Amount()}))


def test_costs_follow_from_prices_and_are_unknown_without() -> None:
    assert Ledger(Budget(), 1.0, 4.0).cost(1_000_000, 500_000) == 3.0
    assert Ledger(Budget(), 1.0, None).cost(1, 1) is None


def test_without_a_limit_nothing_waits() -> None:
    async def main() -> None:
        free = Ledger(Budget())
        amounts = [await free.reserve(10**9, 10**9) for _ in range(100)]
        for amount in amounts:
            free.settle(amount, 1, 1)

    asyncio.run(main())


@pytest.mark.parametrize("limits", [{"max_tokens_total": 10_000}, {"max_cost": 0.02}])
def test_requests_in_flight_never_pass_the_limit_and_nearly_all_of_it_is_used(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    spent = Amount()

    async def ask(book: Ledger) -> None:
        nonlocal spent
        reserved = await book.reserve(200, 60)
        await asyncio.sleep(random.random() / 1000)
        read, written = random.randrange(100, 200), random.randrange(60)
        spent += Amount(read + written, (read + 4 * written) / 1e6)
        book.settle(reserved, read, written)

    async def main() -> list[BaseException | None]:
        book = ledger(tmp_path, **limits)
        return await asyncio.gather(*(ask(book) for _ in range(200)), return_exceptions=True)

    stopped = [error for error in asyncio.run(main()) if error]
    assert stopped
    assert all(isinstance(error, UserError) for error in stopped)
    assert spent.within(Budget(**limits))
    assert (spent + Amount(300, 440e-6)).within(Budget(**limits)) is False
    assert next(iter(limits)) in str(stopped[0])
    assert "raise it" in str(stopped[0])


def test_what_was_spent_before_counts_and_a_raised_limit_goes_on(tmp_path: Path) -> None:
    before = {"0-of-1": Amount(900), "1-of-2": Amount(50)}
    with pytest.raises(UserError, match=r"950 tokens of budget.max_tokens_total = 1,000 .* may take 60"):
        asyncio.run(ledger(tmp_path, spent=before, max_tokens_total=1000).reserve(50, 10))
    asyncio.run(ledger(tmp_path, spent=before, max_tokens_total=1010).reserve(50, 10))


def test_cancelled_waits_reserve_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        book = ledger(tmp_path, max_tokens_total=100)
        first = await book.reserve(80, 0)
        waiting = asyncio.create_task(book.reserve(50, 0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        book.settle(first, 40, 0)
        await book.reserve(60, 0)

    asyncio.run(main())


def test_workers_that_start_die_and_come_back_in_any_order_keep_one_limit(tmp_path: Path) -> None:
    draw = random.Random(0)
    limit, spent = 30_000, {f"{worker}-of-4": 0 for worker in range(4)}
    at_work: dict[str, Ledger] = {}

    async def main() -> None:
        for _ in range(1000):
            worker = draw.choice([*spent])
            if worker not in at_work:
                seen = {name: Amount(tokens) for name, tokens in spent.items() if name == worker or name not in at_work}
                at_work[worker] = ledger(tmp_path, worker, seen, max_tokens_total=limit)
            elif draw.random() < 0.05:
                gone = at_work.pop(worker)
                if draw.random() < 0.5:
                    gone.close()  # else it was killed
            else:
                try:
                    reserved = await at_work[worker].reserve(250, 50)
                except UserError:
                    continue
                took = draw.randrange(50, 300)
                spent[worker] += took
                at_work[worker].settle(reserved, took, 0)
            assert sum(spent.values()) <= limit

    asyncio.run(main())
    assert sum(spent.values()) > 0.95 * limit


def test_a_prompt_has_no_more_tokens_than_bytes_until_replies_say_better() -> None:
    sizes = PromptSizes()
    body = {"messages": [{"role": "user", "content": "é" * 500}, {"role": "user", "content": "abc"}]}
    size = size_of("/chat/completions", body)
    fixed = 2 * TOKENS_A_MESSAGE + TOKENS_A_PROMPT
    assert sizes.at_most(size) == 1003 + fixed
    for _ in range(KNOWN_FROM):
        assert sizes.at_most(size) == 1003 + fixed
        sizes.learn(size, 250)
    assert 300 < sizes.at_most(size) - fixed < 320
    sizes.learn(size, 500)
    assert 600 < sizes.at_most(size) - fixed < 640
    assert sizes.at_most(size_of("/completions", {"prompt": "abc"})) == 3 + TOKENS_A_PROMPT


def test_every_form_of_prompt_is_counted() -> None:
    sizes = PromptSizes()
    for prompt, tokens in (([1, 2, 3], 3), ([[1, 2], [3]], 3), (["ab", "c"], 3), ("abc", 3), ([], 0)):
        assert sizes.at_most(size_of("/completions", {"prompt": prompt})) == tokens + TOKENS_A_PROMPT
    schema = {"messages": [], "response_format": {"schema": "x" * 100}}
    assert sizes.at_most(size_of("/chat/completions", schema)) > 100 + TOKENS_A_PROMPT


def test_once_a_request_was_refused_no_smaller_one_is_sent_either(tmp_path: Path) -> None:
    async def main() -> None:
        book = ledger(tmp_path, max_tokens_total=1_000)
        with pytest.raises(UserError, match="max_tokens_total = 1,000"):
            await book.reserve(1_200, 0)
        with pytest.raises(UserError, match="max_tokens_total = 1,000"):
            await book.reserve(1, 1)

    asyncio.run(main())
