"""What each refusal of an endpoint means, and how long is waited after it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.llm.endpoint.circuit import LONGEST, Backoff
from pipeline.llm.endpoint.faults import (
    LONGEST_WAIT,
    Fault,
    NotFound,
    Rejected,
    Secrets,
    embedded_status,
    read_refusal,
    wished_wait,
)
from pipeline.llm.engine import PromptTooLong

SECRETS = Secrets("https://ann:password1@host/v1", {"Authorization": "Bearer sk-secret-123"})


def meaning(
    status: int, message: str = "no", headers: dict[str, str] | None = None, **fields: Any
) -> Fault | Exception:
    content = json.dumps({"error": {"message": message, **fields}}).encode()
    return read_refusal(status, headers or {}, content, SECRETS, "some-model")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_passing_faults_are_tried_again(status: int) -> None:
    found = meaning(status, "busy")
    assert isinstance(found, Fault)
    assert str(found) == f"status {status}: busy"
    assert found.wait is None


@pytest.mark.parametrize("status", [400, 413, 422, 405])
def test_a_request_that_is_not_taken_is_rejected_with_its_status(status: int) -> None:
    found = meaning(status, "unknown field `top_logprobs`")
    assert isinstance(found, Rejected)
    assert str(found) == f"the endpoint rejects the request ({status}): unknown field `top_logprobs`"


@pytest.mark.parametrize(
    ("status", "message", "fields"),
    [
        (400, "too many", {"code": "context_length_exceeded"}),
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000", {"code": 400}),
        (400, "the request exceeds the available context size", {"type": "exceed_context_size_error", "code": 400}),
        (500, "no", {"type": "exceed_context_size_error"}),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens).", {}),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", {}),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", {}),
    ],
)
def test_prompts_beyond_the_context_are_recognised(status: int, message: str, fields: dict[str, Any]) -> None:
    assert isinstance(meaning(status, message, **fields), PromptTooLong)


@pytest.mark.parametrize(
    ("status", "fields", "kind", "words"),
    [
        (401, {}, UserError, "key"),
        (403, {}, UserError, "key"),
        (404, {}, NotFound, "some-model at https://host/v1"),
        (400, {"code": "model_not_found"}, NotFound, "some-model"),
        (429, {"code": "insufficient_quota"}, UserError, "out of credit"),
        (402, {}, UserError, "out of credit"),
        (307, {}, UserError, "engine.base_url"),
    ],
)
def test_what_stops_the_stage(status: int, fields: dict[str, Any], kind: type[UserError], words: str) -> None:
    found = meaning(status, "server's words, with sk-secret-123", {"location": "http://x?key=sk-secret-123"}, **fields)
    assert isinstance(found, kind)
    assert words in str(found)
    assert "sk-secret" not in str(found)
    assert ("server's words" in str(found)) == (status not in {401, 403, 307})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "status 500: "),
        (b"<html>\n Bad   gateway </html>", "status 500: <html> Bad gateway </html>"),
        (b'{"error": "busy"}', "status 500: busy"),
        (b'{"detail": "busy"}', "status 500: busy"),
        (b'{"error": {"code": 3}}', 'status 500: {"error": {"code": 3}}'),
        (b"[1, 2]", "status 500: [1, 2]"),
        (b"\xff\xfe", "status 500: \ufffd\ufffd"),
    ],
)
def test_messages_of_every_form_are_told(content: bytes, words: str) -> None:
    found = read_refusal(500, {}, content, SECRETS, "m")
    assert isinstance(found, Fault)
    assert str(found) == words


def test_long_messages_are_cut_after_secrets_are_hidden() -> None:
    found = meaning(500, "x" * 285 + "sk-secret-123" + "y" * 500)
    assert isinstance(found, Fault)
    assert "sk-s" not in str(found)
    assert len(str(found)) < 330


def test_errors_sent_as_replies_have_a_status() -> None:
    assert embedded_status({"error": {"code": 429}}) == 429
    assert embedded_status({"error": {"code": "overloaded"}}) == 500
    assert embedded_status({"error": "busy", "choices": []}) == 500
    assert embedded_status({"choices": [1], "error": None}) is None
    assert embedded_status([1]) is None


def test_wishes_to_wait_are_read_as_seconds_milliseconds_and_dates() -> None:
    in_300 = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=300), usegmt=True)
    assert wished_wait({}) is None
    assert wished_wait({"retry-after": "soon"}) is None
    assert wished_wait({"retry-after": "1.2.3"}) is None
    assert wished_wait({"retry-after": "2"}) == 2
    assert wished_wait({"retry-after": "300"}) == 300
    assert wished_wait({"retry-after": "86400"}) == LONGEST_WAIT
    assert wished_wait({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert wished_wait({"retry-after": in_300}) == pytest.approx(300, abs=5)
    assert wished_wait({"retry-after": past}) == 0


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_waits_grow_to_a_limit_and_are_drawn_at_random() -> None:
    clock = Clock()
    backoff = Backoff("", first=0.5, clock=clock, sleep=clock.sleep)
    for number in range(1, 12):
        for _ in range(200):
            asyncio.run(backoff.before_try(number))
        most = min(LONGEST, 0.5 * 2 ** (number - 1))
        drawn = clock.slept[-200:]
        assert 0.9 * most < max(drawn) <= most
        assert min(drawn) < 0.1 * most


def test_a_pause_is_shared_lasts_as_long_as_the_longest_wish_and_ends_with_jitter() -> None:
    ended = []
    for _ in range(50):
        clock = Clock()
        backoff = Backoff("", clock=clock, sleep=clock.sleep)
        backoff.pause_all(300)
        backoff.pause_all(2)
        paused = backoff.paused
        asyncio.run(backoff.over())
        assert (paused, backoff.paused) == (True, False)
        ended.append(clock.now)
    assert 300 <= min(ended) < max(ended) <= 301
