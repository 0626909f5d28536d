"""Requests meet a real server on loopback: cached, shared, within the budget, and ended at once by Ctrl-C."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.execution.concurrency import TURN
from pipeline.llm.endpoint import client
from pipeline.llm.endpoint.client import PLAIN, Client
from pipeline.llm.endpoint.faults import Rejected
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask, Sender
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply
from tests.pipeline.llm.endpoint.sending import ask, echo, endpoint_of, fill_disk, sending


def test_a_reply_is_reduced_counted_and_never_asked_for_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, body={"top_k": 3}) as sender:
            for _ in range(2):
                assert await ask(sender) == Answer({"texts": ["QUESTION 1"]}, 100, 10)

    with Loopback(echo) as server:
        for _ in range(2):
            asyncio.run(main())
        assert server.requests == 1
        assert server.bodies[0]["model"] == "m"
        assert server.bodies[0]["top_k"] == 3


def test_all_that_makes_a_reply_another_one_is_in_the_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            for name, attempt in ((1, 0), (2, 0), (1, 1), (1, 0)):
                await ask(sender, name, attempt)
            body = {"messages": [{"role": "user", "content": "question 1"}], "max_tokens": 10}
            await sender.ask(Ask(PLAIN, body))
        for settings in ({"model": "other"}, {"body": {"top_k": 1}}, {}, {"headers": {"X-A": "b"}}, {"retries": 1}):
            async with sending(server, tmp_path, **settings) as sender:
                await ask(sender)

    with Loopback(echo) as server:
        asyncio.run(main())
        assert server.requests == 6


def test_a_body_is_sent_as_it_is_hashed(tmp_path: Path) -> None:
    """Its fields keep their order, and half of a surrogate pair, which UTF-8 cannot hold, does not keep it back."""

    async def main() -> None:
        async with sending(server, tmp_path, retries=0, body={"top_k": 3}) as sender:
            await ask(sender, "\ud800")

    with Loopback(echo) as server:
        asyncio.run(main())
        assert list(server.bodies[0]) == ["model", "messages", "max_tokens", "top_k"]
        assert server.bodies[0]["messages"][0]["content"] == "question ?"


def test_equal_requests_at_a_time_are_sent_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            assert len({id(answer) for answer in await asyncio.gather(*(ask(sender) for _ in range(20)))}) == 1
            server.script.extend(["400"])
            found = await asyncio.gather(*(ask(sender, 2) for _ in range(5)), return_exceptions=True)
            assert all(isinstance(error, Rejected) for error in found)

    with Loopback(echo, latency=0.05) as server:
        asyncio.run(main())
        assert server.requests == 2


def test_a_cancelled_request_is_taken_over_by_who_waits_for_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            first, second = (asyncio.create_task(ask(sender)) for _ in range(2))
            await asyncio.sleep(0.02)
            first.cancel()
            assert (await second).body == {"texts": ["QUESTION 1"]}

    with Loopback(echo, latency=0.1) as server:
        asyncio.run(main())


def test_concurrency_is_kept_and_earlier_shards_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that in which requests leave, as the server may read eight connections in another one."""
    turns: list[int] = []
    post = Client.post

    async def noted(sent_by: Client, path: str, content: bytes) -> Any:
        turns.append(int(json.loads(content)["messages"][0]["content"].split()[1]))
        return await post(sent_by, path, content)

    async def work(sender: Sender, turn: int, number: int) -> None:
        TURN.set(turn)
        await ask(sender, f"{turn} {number}")

    async def main() -> None:
        async with sending(server, tmp_path, concurrency=8) as sender:
            await asyncio.gather(*(work(sender, turn, number) for number in range(20) for turn in (2, 1, 0)))

    monkeypatch.setattr(Client, "post", noted)
    with Loopback(echo, latency=0.01) as server:
        asyncio.run(main())
        assert server.most_in_flight == 8
        assert server.connections == 8
        assert server.requests == len(turns) == 60
    assert turns[8:] == sorted(turns[8:])


@pytest.mark.parametrize("limit", [{"max_tokens_total": 6000}, {"max_cost": 0.008}])
@pytest.mark.parametrize("fault", ["500", "drop", "truncated"])
def test_the_budget_is_not_passed_by_the_servers_own_count(tmp_path: Path, limit: dict[str, Any], fault: str) -> None:
    faults = {fault: 0.4, "429": 0.03}

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        size = len(body["messages"][0]["content"])
        return chat_reply("words", prompt_tokens=size // (3 + size % 3) + 10, completion_tokens=size % 10)

    async def main(factor: int, numbers: Iterable[int]) -> list[BaseException | Answer]:
        raised = Budget(**{name: value * factor for name, value in limit.items()})
        async with sending(server, tmp_path, raised, concurrency=16) as sender:
            work = (ask(sender, "x" * (number % 150) + str(number)) for number in numbers)
            return await asyncio.gather(*work, return_exceptions=True)

    with Loopback(reply, faults=faults, seed=1) as server:
        for factor in (1, 2):
            found = asyncio.run(main(factor, range(800)))
            assert any(isinstance(one, UserError) and "budget" in str(one) for one in found)
            assert any(isinstance(one, Answer) for one in found)
            if "max_tokens_total" in limit:
                assert 0.1 * 6000 * factor < server.tokens <= 6000 * factor
            else:
                assert server.tokens <= 8000 * factor  # tokens of 1e-6 each at least
        paid = server.requests
        stored = [number for number, one in enumerate(found) if isinstance(one, Answer)]
        assert all(isinstance(one, Answer) for one in asyncio.run(main(1, stored)))  # needs no budget
        assert server.requests == paid


def test_tokens_that_a_server_does_not_tell_are_counted_by_their_bound(tmp_path: Path) -> None:
    async def main() -> None:
        async with sending(server, tmp_path) as sender:
            answer = await ask(sender)
            assert answer.prompt_tokens > len("question 1")
            assert answer.completion_tokens == 10

    reply = chat_reply("words") | {"usage": None}
    with Loopback(lambda _: reply) as server:
        asyncio.run(main())


def test_proxies_of_the_environment_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, base_url="http://far.invalid/v1") as sender:
            assert (await ask(sender)).body == {"texts": ["QUESTION 1"]}
            server.script.append("reset")
            assert (await ask(sender, 2)).body == {"texts": ["QUESTION 2"]}

    with Loopback(echo) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        asyncio.run(main())
        assert server.heads[0][0] == "http://far.invalid/v1/chat/completions"


def test_connections_that_the_server_closed_are_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with sending(server, tmp_path, retries=0) as sender:
            await ask(sender, 1)
            server.stop_listening()
            server.start_listening()
            await asyncio.sleep(0.05)
            await ask(sender, 2)
        monkeypatch.setattr(client, "KEEP_ALIVE_SECONDS", 1e-9)
        async with sending(server, tmp_path, retries=0) as sender:
            await ask(sender, 3)
            await ask(sender, 4)

    with Loopback(echo) as server:
        asyncio.run(main())
        assert server.connections == 4


def test_after_a_write_that_failed_nothing_is_sent_any_more(tmp_path: Path) -> None:
    """A reply that cannot be stored would be paid for in vain."""

    async def main() -> None:
        config = LanguageModel(model="m", base_url=server.base_url, concurrency=4)
        endpoint = endpoint_of(config, tmp_path)
        fill_disk(endpoint.cache)
        sender = LiveSender(endpoint)
        found = await asyncio.gather(*(ask(sender, number) for number in range(40)), return_exceptions=True)
        stored = sum(isinstance(one, Answer) for one in found)
        assert sum(isinstance(one, UserError) and "free some space" in str(one) for one in found) == len(found) - stored
        assert server.requests <= stored + 4
        await endpoint.aclose()

    long = chat_reply(random.Random(0).randbytes(20_000).hex())
    with Loopback(lambda _: long, latency=0.01) as server:
        asyncio.run(main())


ASKS = """
import asyncio, sys
from pathlib import Path
from pipeline.config import LanguageModel
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.sender import Ask
from tests.pipeline.llm.endpoint.sending import endpoint_of

async def main():
    endpoint = endpoint_of(LanguageModel(model="m", base_url=sys.argv[1]), Path(sys.argv[2]))
    sender = LiveSender(endpoint)
    async def ask(number):
        body = {"messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 10}
        await sender.ask(Ask("/chat/completions", body, lambda reply: {"texts": []}))
        print(number, flush=True)
    await asyncio.gather(*(ask(number) for number in range(300)))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_end_at_once_and_lose_no_received_reply(tmp_path: Path, how: signal.Signals) -> None:
    with Loopback(echo, latency=0.02) as server:
        server.script.extend(["ok"] * 150 + ["429:300"] + ["silent"] * 200)
        command = [sys.executable, "-c", ASKS, server.base_url, str(tmp_path)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert run.stdout is not None
        done = [int(next(run.stdout)) for _ in range(120)]
        run.send_signal(how)
        stopped = time.monotonic()
        done += [int(line) for line in run.stdout if line.endswith("\n")]
        run.wait(timeout=60)
        assert time.monotonic() - stopped < 20  # 2 s are promised
        run.stdout.close()
        received = server.met["ok"]
        server.script.clear()

        async def main() -> None:
            async with sending(server, tmp_path) as sender:
                server.requests = 0
                await asyncio.gather(*(ask(sender, number) for number in done))

        asyncio.run(main())
        assert server.requests == 0
        assert len(done) <= received
