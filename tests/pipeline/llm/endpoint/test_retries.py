"""What is tried again, what is raised at once, and what holds requests back."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.llm.endpoint.circuit import Backoff
from pipeline.llm.endpoint.faults import NotFound, Rejected
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.engine import EngineError, PromptTooLong
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply
from tests.pipeline.llm.endpoint.sending import ask, echo, sending

PASSING = ["408", "409", "429", "500", "503", "reset", "drop", "empty", "truncated", "garbage"]


@pytest.mark.parametrize("fault", PASSING)
def test_passing_faults_are_tried_again_within_the_limit(tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            server.script.extend([fault, fault])
            assert (await ask(sender, 1)).body == {"texts": ["QUESTION 1"]}
            server.script.extend([fault] * 3)
            with pytest.raises(EngineError, match="no usable reply in 3 tries"):
                await ask(sender, 2)
            assert (await ask(sender, 2)).body == {"texts": ["QUESTION 2"]}  # failures are not kept

    with Loopback(echo) as server:
        asyncio.run(main())
        assert server.requests == 7


def test_a_reply_without_what_was_asked_for_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            assert (await ask(sender)).body == {"texts": ["good"]}

    replies = [{"choices": None}, chat_reply("good")]
    with Loopback(lambda _: replies.pop(0)) as server:
        asyncio.run(main())


def test_an_error_sent_as_a_reply_is_told_as_the_error_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            with pytest.raises(Rejected, match=r"\(400\): no such field"):
                await ask(sender)

    with Loopback(lambda _: {"error": {"code": 400, "message": "no such field"}}) as server:
        asyncio.run(main())


def test_a_server_that_never_answers_is_given_up_by_the_clock(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, timeout=0.2, retries=1) as sender:
            server.script.extend(["silent", "ok", "silent", "silent"])
            await ask(sender, 1)
            with pytest.raises(EngineError, match=r"no reply within 0\.2 s"):
                await ask(sender, 2)

    with Loopback(echo) as server:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("400", Rejected, "400"),
        ("422", Rejected, "422"),
        ("context", PromptTooLong, "context"),
        ("401", UserError, "the key for m at http://127"),
        ("403", UserError, "the key"),
        ("404", NotFound, "unknown model or path"),
        ("quota", UserError, "out of credit"),
        ("moved", UserError, "the key is not sent"),
    ],
)
def test_what_no_retry_can_mend_is_raised_at_once(
    tmp_path: Path, fault: str, error: type[Exception], words: str
) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            with pytest.raises(error, match=words):
                await ask(sender)

    with Loopback(script=[fault]) as server:
        server.elsewhere = "http://127.0.0.1:1/v1"
        asyncio.run(main())
        assert server.requests == 1


async def errors_of(work: Coroutine[Any, Any, Any]) -> BaseException | None:
    return (await asyncio.gather(work, return_exceptions=True))[0]


def test_a_dead_endpoint_stops_the_stage_and_one_that_comes_back_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, patience=0.2) as sender:
            server.stop_listening()
            assert isinstance(error := await errors_of(ask(sender, 1)), UserError)
            assert "does not answer" in str(error)
            server.start_listening()
            await ask(sender, 1)
            server.stop_listening()
            assert isinstance(error := await errors_of(ask(sender, 2)), UserError)
            assert "engine.patience" in str(error)
        async with sending(server, tmp_path, backoff=Backoff("", first=0.1), retries=6) as sender:
            asked = asyncio.create_task(ask(sender, 3))
            await asyncio.sleep(0.05)
            server.start_listening()
            await asked

    with Loopback(echo) as server:
        asyncio.run(main())


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


@pytest.mark.parametrize(("wish", "seconds"), [("1500ms", 1.5), ("300", 300.0), ("5000", 600.0)])
def test_a_wish_to_wait_holds_back_all_requests(tmp_path: Path, wish: str, seconds: float) -> None:
    clock = Clock()
    backoff = Backoff("", first=0.0, clock=clock, sleep=clock.sleep)
    worked_on: list[float] = []

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        worked_on.append(clock.now)
        return echo(body)

    async def main() -> None:
        async with sending(server, tmp_path, backoff=backoff, concurrency=1) as sender:
            server.script.append(f"429:{wish}")
            await asyncio.gather(*(ask(sender, number) for number in range(4)))

    with Loopback(reply) as server:
        asyncio.run(main())
        assert server.requests == 5
    assert seconds <= min(worked_on)


def test_a_wait_between_tries_holds_no_place(tmp_path: Path) -> None:
    async def main() -> None:
        backoff = Backoff("", first=3600.0)
        async with sending(server, tmp_path, backoff=backoff, concurrency=1) as sender:
            server.script.append("500")
            waiting = asyncio.create_task(ask(sender, 1))
            await asyncio.sleep(0.1)
            await asyncio.wait_for(ask(sender, 2), 30)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    with Loopback(echo) as server:
        asyncio.run(main())


def test_every_request_ends_under_random_faults(tmp_path: Path) -> None:
    faults = dict.fromkeys([*PASSING, "refuse", "400", "context"], 0.01) | {"silent": 0.002}

    async def main() -> list[Any]:
        async with sending(server, tmp_path, retries=6, concurrency=32, timeout=1.0) as sender:
            return await asyncio.gather(*(ask(sender, number) for number in range(500)), return_exceptions=True)

    with Loopback(echo, faults=faults, seed=3) as server:
        found = asyncio.run(main())
    for number, one in enumerate(found):
        assert isinstance(one, EngineError) or one.body == {"texts": [f"QUESTION {number}"]}, one
    assert sum(isinstance(one, Answer) for one in found) > 450


def test_the_servers_own_words_reach_the_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, retries=0) as sender:
            with pytest.raises(EngineError, match="status 503"):
                await ask(sender)

    with Loopback(script=["503"]) as server:
        asyncio.run(main())
        assert server.met == {"503": 1}
