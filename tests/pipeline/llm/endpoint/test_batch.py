"""The batch interface: what is submitted, what is tried again, what is told."""

import asyncio
import json
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.batch import BatchSender
from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.llm.engine import EngineError, Message, PromptTooLong, Request
from tests.pipeline.llm.endpoint.batch_run import QUICK, answers, ask, expected, files, question, texts
from tests.pipeline.llm.endpoint.model_server import Json, ModelServer
from tests.pipeline.llm.endpoint.sending import endpoint_of


def test_requests_are_collected_into_one_batch_and_each_gets_its_answer(server: ModelServer, tmp_path: Path) -> None:
    found = ask(server, tmp_path, range(20))
    assert texts(found) == expected(server, range(20))
    (batch,) = server.batches.batches.values()
    assert batch["endpoint"] == "/v1/chat/completions"
    assert batch["metadata"]["run"] == tmp_path.name
    lines = [json.loads(line) for line in server.batches.files[batch["input_file_id"]].splitlines()]
    assert [line["body"]["messages"] for line in lines] == [question(n)["messages"] for n in range(20)]
    assert {(line["method"], line["url"], line["body"]["model"]) for line in lines} == {
        ("POST", "/v1/chat/completions", "tiny")
    }
    assert files(tmp_path) == []


def test_a_second_run_asks_nothing(server: ModelServer, tmp_path: Path) -> None:
    first = ask(server, tmp_path, range(3))
    server.batches.batches.clear()
    assert ask(server, tmp_path, range(3)) == first
    assert not server.batches.batches


def test_equal_requests_are_one_line(server: ModelServer, tmp_path: Path) -> None:
    assert len(set(texts(ask(server, tmp_path, [4, 4, 4])))) == 1
    assert len(server.batches.lines) == 1


def test_each_path_has_its_own_batch(server: ModelServer, tmp_path: Path) -> None:
    texts(ask(server, tmp_path, range(2)))
    texts(ask(server, tmp_path, range(2), path="/completions"))
    assert [batch["endpoint"] for batch in server.batches.batches.values()] == [
        "/v1/chat/completions",
        "/v1/completions",
    ]


def test_failed_lines_go_into_another_batch(server: ModelServer, tmp_path: Path) -> None:
    tries: Counter[str] = Counter()

    def fails(custom_id: str, body: Json) -> bool:
        tries[custom_id] += 1
        return body == question(1) | {"model": "tiny"} and tries[custom_id] < 3

    server.batches.fails = fails
    assert texts(ask(server, tmp_path, range(3))) == expected(server, range(3))
    assert Counter(server.batches.lines) == tries
    assert sorted(tries.values()) == [1, 1, 3]


def test_a_line_that_always_fails_is_this_request_s_error(server: ModelServer, tmp_path: Path) -> None:
    server.batches.fails = lambda _, body: body["messages"] == question(1)["messages"]
    good, bad = ask(server, tmp_path, range(2))
    assert isinstance(good, Answer)
    assert isinstance(bad, EngineError)
    assert "in 3 tries" in str(bad)
    assert len(server.batches.lines) == 2 + 2
    assert files(tmp_path) == []


@pytest.mark.parametrize("outcome", ["failed", "expired", "cancelled"])
def test_batches_that_end_badly_are_submitted_again(outcome: str, server: ModelServer, tmp_path: Path) -> None:
    server.batches.outcomes = [outcome]
    server.batches.done_before_expiry = 2
    assert texts(ask(server, tmp_path, range(5))) == expected(server, range(5))
    assert len(server.batches.lines) == 5 + (3 if outcome == "expired" else 5), "what an expired batch has done is used"


def test_what_is_wrong_with_a_request_is_told(server: ModelServer, tmp_path: Path) -> None:
    server.now(context=25)
    (too_long,) = ask(server, tmp_path, range(1))
    assert isinstance(too_long, PromptTooLong)
    server.now(context=None, refused=frozenset({"max_tokens"}))
    (refused,) = ask(server, tmp_path, range(1))
    assert isinstance(refused, EngineError)
    assert "max_tokens" in str(refused)
    server.now(refused=frozenset())
    (unknown,) = ask(server, tmp_path, range(1), model="large")
    assert isinstance(unknown, UserError)
    assert len(server.batches.lines) == 3, "none of it is tried again"


def test_garbage_counts_its_tokens_and_is_asked_again(server: ModelServer, tmp_path: Path) -> None:
    spoilt = iter([True, False])
    server.spoil = lambda path, body, reply: reply | {"choices": []} if next(spoilt) else reply
    assert texts(ask(server, tmp_path, [7])) == expected(server, [7])
    cache = ResponseCache(tmp_path / "_replies", "0-of-1")
    read, written, *_ = map(sum, zip(*cache.totals().values(), strict=True))
    cache.close()
    assert read + written == 2 * (len(server.model.chat_ids(question(7)["messages"])) + 3)


def test_a_submission_whose_answer_is_lost_is_not_made_twice(server: ModelServer, tmp_path: Path) -> None:
    texts(ask(server, tmp_path / "earlier", range(3)))
    server.batches.loses_reply_to_create = 1
    assert texts(ask(server, tmp_path, range(3, 6))) == expected(server, range(3, 6))
    assert len(server.batches.batches) == 2


def test_an_outage_while_a_batch_is_followed_is_waited_for(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, calls = server.batches.get, count()
    out: Any = (503, {"error": {"message": "busy"}})
    monkeypatch.setattr(server.batches, "get", lambda path: out if next(calls) < 12 else get(path))
    assert texts(ask(server, tmp_path, range(3), retries=1)) == expected(server, range(3))
    assert next(calls) > 12
    monkeypatch.setattr(server.batches, "get", lambda path: out)
    (error,) = ask(server, tmp_path, [7], retries=1, patience=0.5)
    assert isinstance(error, UserError)
    assert "what was submitted goes on there" in str(error)


def test_a_server_without_batches_is_told(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.batches, "post", lambda *_: (404, {"error": {"message": "Not Found"}}))
    (error,) = ask(server, tmp_path, [1])
    assert isinstance(error, UserError)
    assert 'mode = "live"' in str(error)


def test_an_engine_in_batch_mode_probes_at_once(server: ModelServer, tmp_path: Path) -> None:
    config = LanguageModel(model="tiny", base_url=server.url, mode="batch")

    async def main() -> list[str]:
        endpoint = endpoint_of(config, tmp_path / "_replies")
        live, batches = LiveSender(endpoint), BatchSender(endpoint, QUICK)
        engine = EndpointEngine(endpoint, batches, live)
        try:
            requests = [Request((Message("user", f"Word {number}"),), 12, n=2) for number in range(3)]
            found = await asyncio.gather(*(engine.complete(request) for request in requests))
            return [reply.text for group in found for reply in group]
        finally:
            await engine.aclose()

    assert len(set(asyncio.run(main()))) == 6
    assert len(server.batches.lines) == 3


def test_the_budget_is_kept_before_anything_is_submitted(server: ModelServer, tmp_path: Path) -> None:
    server.batches.asks_until_done = 3
    found = ask(server, tmp_path, range(30), budget=Budget(max_tokens_total=900))
    stopped = [answer for answer in found if isinstance(answer, UserError)]
    assert stopped
    assert all("max_tokens_total" in str(error) for error in stopped)
    used = sum(len(server.model.chat_ids(body["messages"])) + 3 for _, body in server.seen)
    assert 450 < used <= 900
    asked = len(server.seen)
    assert texts(ask(server, tmp_path, range(30), budget=Budget(max_tokens_total=90_000))) == expected(
        server, range(30)
    )
    assert len(server.seen) == 30 > asked, "each is paid once"


def test_no_key_is_in_any_file(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-very-secret-1234")
    server.now(key="sk-very-secret-1234")
    server.batches.asks_until_done = 10_000

    async def begin() -> None:
        task = asyncio.create_task(answers(server.url, tmp_path, range(3), key_variable="TINY_KEY"))
        while not server.batches.batches:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(begin())
    found = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".jsonl" for file in found)
    assert not any(b"very-secret" in file.read_bytes() for file in found)
    server.batches.asks_until_done = 0
    assert len(texts(ask(server, tmp_path, range(3), key_variable="TINY_KEY"))) == 3
    assert len(server.batches.batches) == 1
    server.now(key="another")
    (error,) = ask(server, tmp_path, [9], key_variable="TINY_KEY")
    assert isinstance(error, UserError)
    assert "very-secret" not in str(error)


def test_a_batch_that_cannot_be_followed_stops_who_asks_for_it(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-one")
    server.now(key="sk-one")
    server.batches.asks_until_done = 10_000

    async def begin() -> None:
        task = asyncio.create_task(answers(server.url, tmp_path, range(3), key_variable="TINY_KEY"))
        while not sum(server.batches.asked.values()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(begin())
    server.now(key="sk-two")
    found = ask(server, tmp_path, range(3), key_variable="TINY_KEY")
    assert all(isinstance(error, UserError) for error in found), found
