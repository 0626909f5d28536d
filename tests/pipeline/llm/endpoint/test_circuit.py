"""An outage makes all requests wait but one; what is a request's own fault holds no other request back."""

import asyncio
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.llm.endpoint.circuit import Backoff
from pipeline.llm.endpoint.client import CHAT
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask
from pipeline.llm.engine import EngineError
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply
from tests.pipeline.llm.endpoint.sending import ask, echo, sending

OUT = 1.5
PLACES = 8


async def all_asked(sender: Any, count: int) -> list[Any]:
    return await asyncio.gather(*(ask(sender, number) for number in range(count)), return_exceptions=True)


async def through_outage(
    server: Loopback, folder: Path, begin: Callable[[], None], end: Callable[[], None], timeout: float = 5.0
) -> None:
    backoff = Backoff("", first=0.05)
    async with sending(server, folder, backoff=backoff, concurrency=PLACES, timeout=timeout) as sender:
        await ask(sender, "before")
        begin()
        asked = asyncio.create_task(all_asked(sender, 60))
        await asyncio.sleep(OUT)
        end()
        assert all(isinstance(one, Answer) for one in await asked)


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "silent"])
def test_an_outage_fails_no_request_and_costs_few(tmp_path: Path, fault: str) -> None:
    def become(faults: dict[str, float]) -> None:
        server.faults = faults

    with Loopback(echo, latency=0.01) as server:
        timeout = 0.3 if fault == "silent" else 5.0
        asyncio.run(through_outage(server, tmp_path, lambda: become({fault: 1.0}), lambda: become({}), timeout=timeout))
        assert server.met["ok"] >= 61
        assert server.met[fault] <= PLACES + 8


def test_a_server_that_is_gone_for_a_while_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Loopback(echo, latency=0.01) as server:
        asyncio.run(through_outage(server, tmp_path, server.stop_listening, server.start_listening))
        assert server.met["ok"] == 61
    said = capsys.readouterr().out
    assert "out of order (no connection" in said
    assert "3600 s at most (engine.patience)" in said
    assert "answers again" in said


def test_patience_ends_and_the_stage_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, patience=0.5, concurrency=PLACES) as sender:
            await ask(sender, "before")
            server.faults["503"] = 1.0
            found = await all_asked(sender, 30)
            assert all(isinstance(one, UserError) for one in found), "an EngineError would be a failed row"
            assert "engine.patience" in str(found[0])
            assert "status 503" in str(found[0])

    with Loopback(echo) as server:
        started = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - started < 20
        assert server.met["503"] <= PLACES + 16


def reply_but_to(poison: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A server that answers all questions but one kind."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][0]["content"]
        return {"error": {"code": 500, "message": "cannot read that"}} if poison in asked else echo(body)

    return reply


def small_question() -> Ask:
    body = {"messages": [{"role": "user", "content": "Say yes"}], "max_tokens": 3}
    return Ask(CHAT, body, lambda _: {}, time.monotonic_ns())


def test_requests_that_always_fail_are_their_own_error_though_no_other_is_left(tmp_path: Path) -> None:
    async def main() -> list[Any]:
        async with sending(server, tmp_path, concurrency=2) as sender:
            assert isinstance(sender, LiveSender)
            sender.small_question = small_question
            return await asyncio.wait_for(
                asyncio.gather(*(ask(sender, f"poison {number}") for number in range(9)), return_exceptions=True), 30
            )

    with Loopback(reply_but_to("poison")) as server:
        found = asyncio.run(main())
    assert all(isinstance(one, EngineError) and "cannot read that" in str(one) for one in found), found


def test_in_an_outage_the_small_question_is_asked_and_the_request_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, concurrency=1) as sender:
            assert isinstance(sender, LiveSender)
            sender.small_question = small_question
            server.script.extend(["503"] * 12)
            assert isinstance(await ask(sender), Answer)

    with Loopback(echo) as server:
        asyncio.run(main())
        assert server.met["503"] == 12


def test_an_endpoint_that_answers_small_questions_alone_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """As one with too much to do: it fails at every request, and at a small question now and then."""
    turns = cycle([False, False, True])

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        answers = "Say yes" in body["messages"][0]["content"] and next(turns)
        return echo(body) if answers else {"error": {"code": 503, "message": "busy"}}

    async def main() -> list[Any]:
        async with sending(server, tmp_path, concurrency=2, patience=1.0) as sender:
            assert isinstance(sender, LiveSender)
            sender.small_question = small_question
            return await asyncio.wait_for(all_asked(sender, 20), 30)

    with Loopback(reply) as server:
        assert any(isinstance(one, UserError) for one in asyncio.run(main()))


@pytest.mark.parametrize("fault", ["400", "context", "garbage", "empty", "truncated"])
def test_a_request_s_own_fault_holds_no_other_back(tmp_path: Path, fault: str) -> None:
    async def main() -> list[Any]:
        async with sending(server, tmp_path, backoff=Backoff("", first=0.0), retries=0, concurrency=1) as sender:
            assert isinstance(sender, LiveSender)
            server.script.extend([fault] * 20)
            found = await all_asked(sender, 21)
            assert not sender.circuit.is_open
            return found

    with Loopback(lambda _: chat_reply("words")) as server:
        *failed, last = asyncio.run(main())
        assert all(isinstance(one, EngineError) for one in failed)
        assert isinstance(last, Answer)
        assert server.requests == 21
