"""What goes wrong between a request and its reply: what is tried again, what is this request's own, what stops the stage."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.errors import UserError
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.engine import EngineError, PromptTooLong

LONGEST_WAIT = 600.0
"""Seconds that an endpoint's wish to wait is followed for at most; then another try is made."""
QUOTED = 300
"""Characters of an endpoint's message that are repeated."""
TRIED_AGAIN = frozenset({408, 409, 425, 429})
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|model'?s? context|prompt is too long|input is too long"
    r"|exceeds? the maximum number of tokens|max_model_len|`?inputs`? tokens",
    re.IGNORECASE,
)
UNLIKE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
"""What reading a reply raises that is not what was asked for."""
_SURROGATES = re.compile("[\ud800-\udfff]")


class NotFound(UserError):
    """The endpoint knows no such model, or no such path (404)."""


class Rejected(EngineError):
    """The endpoint does not take the request as it is (400, 413, 422): an unknown field, a value that is not allowed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the endpoint rejects the request ({status}): {message}")
        self.status = status
        self.message = message


class Fault(Exception):
    """One try that failed where another may succeed; its message holds no secret."""

    def __init__(
        self, words: str, *, wait: float | None = None, answered: bool = True, tokens: tuple[int, int] | None = (0, 0)
    ) -> None:
        """
        Args:
            wait: seconds that the endpoint wants to be left alone.
            answered: whether there is a server at all.
            tokens: read and written for nothing; None where a server may have read the request and does not say.
        """
        super().__init__(words)
        self.wait, self.answered, self.tokens = wait, answered, tokens


def read_refusal(
    status: int, headers: Mapping[str, str], content: bytes, secrets: Secrets, model: str
) -> Fault | EngineError | UserError:
    """What a reply without a usable body means.

    Args:
        headers: by their names, in any case.
    """
    where = f"{model} at {secrets.endpoint}"
    if status in {401, 403}:
        return UserError(
            f"the key for {where} is refused ({status}); check the variable that engine.key_variable names"
        )
    message, codes = _message(content)
    message = secrets.redact(message)[:QUOTED]
    if codes & NO_CREDIT or status == 402:
        return UserError(f"out of credit for {where}: {message}; the same command goes on once there is some")
    if status == 404 or "model_not_found" in codes:
        return NotFound(f"unknown model or path: {where}: {message}; check engine.model and engine.base_url")
    if codes & TOO_LONG or (status in {400, 413, 422} and _TOO_LONG.search(message)):
        return PromptTooLong(f"the prompt and its reply do not fit the model's context: {message}")
    named = {name.lower(): value for name, value in headers.items()}
    if 300 <= status < 400:
        moved = secrets.redact(named.get("location", "").partition("?")[0]) or "elsewhere"
        return UserError(
            f"{where} points to {moved}, where the key is not sent; set engine.base_url to the right address"
        )
    if status in TRIED_AGAIN or status >= 500:
        return Fault(f"status {status}: {message}", wait=wished_wait(named))
    return Rejected(status, message)


def parsed_reply(content: bytes) -> Any:
    """The JSON of a reply; halves of surrogate pairs, which no table can hold, become U+FFFD.

    Raises:
        Fault: no JSON, or too deep, or a number with too many digits.
    """
    try:
        reply = json.loads(content)
        if b"\\ud" in content or b"\\uD" in content:
            reply = json.loads(_SURROGATES.sub("\ufffd", json.dumps(reply, ensure_ascii=False)))
    except UNLIKE:
        words = "a reply that is no JSON" if content else "an empty reply"
    else:
        return reply
    raise Fault(words, tokens=None)


def embedded_status(reply: Any) -> int | None:
    """The status of an error that came as a reply with status 200, as gateways send it; None for a true reply."""
    error = reply.get("error") if isinstance(reply, dict) and not reply.get("choices") else None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def wished_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after`, which is a number of seconds or a date; None without."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            value = headers.get("retry-after", "").strip()
            seconds = float(value) if re.fullmatch(r"[\d.]+", value) else _seconds_until(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _seconds_until(date: str) -> float:
    then = parsedate_to_datetime(date)
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()


def _message(content: bytes) -> tuple[str, set[str]]:
    """What an error's body says in words, and its codes."""
    text = " ".join(content.decode("utf-8", "replace").split())
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return text, set()
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return (error if isinstance(error, str) else text), set()
    said = next((error[name] for name in ("message", "detail", "error") if isinstance(error.get(name), str)), text)
    return " ".join(said.split()), {str(error[name]) for name in ("code", "type") if error.get(name)}
