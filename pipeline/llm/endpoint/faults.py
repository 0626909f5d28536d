"""What goes wrong between a request and its reply, in words that show no secret.

It is tried again (`Fault`), is this request's own error (`EngineError`), or stops the stage (`UserError`).
"""

import base64
import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.engine import EngineError, PromptTooLong, valid_text

LONGEST_WAIT = 600.0
"""Seconds that an endpoint's wish to wait is followed for at most; then another try is made."""
QUOTED = 300
"""Characters of an endpoint's message that are repeated."""
TRIED_AGAIN = frozenset({408, 409, 425, 429})
BUSY = frozenset({408, 429})
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|model'?s? context|prompt is too long|input is too long"
    r"|exceeds? the maximum number of tokens|max_model_len|`?inputs`? tokens",
    re.IGNORECASE,
)
UNLIKE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
"""What reading a reply raises that is not what was asked for."""
HIDDEN = "***"
SHORTEST = 4
"""Values with fewer characters are not looked for in messages: they are no secrets, and words hold them by chance."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,12}")
"""Names of variables that messages repeat; anything else may be a key that was pasted there."""
_NAMES = re.compile(r"key|token|secret|passw|auth", re.IGNORECASE)
_MASKED = re.compile(r"[\w-]{0,16}(?:[*•]{2,}|…)[\w-]{0,16}")
_DOTTED = re.compile(r"([\w-]{2,16})(?:\.{3,}|[xX]{3,})([\w-]{0,16})")


class NotFound(UserError):
    """The endpoint knows no such model, or no such path (404)."""


class Rejected(EngineError):
    """The endpoint does not take the request as it is (400, 413, 422): an unknown field, a value that is not allowed."""


class Fault(Exception):
    """One try that failed where another may succeed; its message holds no secret."""

    def __init__(
        self,
        words: str,
        *,
        wait: float | None = None,
        answered: bool = True,
        outage: bool = False,
        tokens: tuple[int, int] | None = (0, 0),
    ) -> None:
        """
        Args:
            wait: seconds that the endpoint wants to be left alone.
            answered: whether there is a server at all.
            outage: whether any other request could have met it too, as the endpoint is down or has too much to do.
            tokens: read and written for nothing; None where a server may have read the request and does not say.
        """
        super().__init__(words)
        self.wait, self.answered, self.outage, self.tokens = wait, answered, outage, tokens


class Secrets:
    """The headers and the address that requests really go to, the address that messages may name, and `redact`."""

    def __init__(self, base_url: str, headers: dict[str, str], further: Iterable[str] = ()) -> None:
        """further: more values that no message may hold."""
        parts = urlsplit(base_url)
        place = parts.netloc.rpartition("@")[2]
        self.endpoint = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
        """The address without user, password and query."""
        self.query = parts.query
        self.headers = headers
        values = {*headers.values(), *further, *_credentials(base_url)}
        values |= {value.partition(" ")[2] for value in headers.values()}
        values |= {quote(value, safe="") for value in values}
        self._values = sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)

    @classmethod
    def of(cls, config: LanguageModel) -> "Secrets":
        """Those of an engine.

        Raises:
            UserError: an environment variable is not set, or what it holds cannot be sent.
        """
        assert config.base_url is not None
        parts = urlsplit(config.base_url)
        headers: dict[str, str] = {}
        if parts.username or parts.password:
            if config.key_variable is not None:
                raise UserError(
                    "base_url holds a user and key_variable names a key, but only one of them can be sent; leave one out"
                )
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if config.key_variable is not None:
            headers["Authorization"] = f"Bearer {_variable(config.key_variable, 'key_variable')}"
        for name, value in config.headers.items():
            known = next((other for other in headers if other.lower() == name.lower()), name)
            setting = f"engine.headers.{name}"
            read = _variable(value[4:], setting) if value.startswith("env:") else value
            headers[known] = _sendable(read, setting)
        return cls(config.base_url, headers, _named_secrets(config.body))

    def redact(self, text: str) -> str:
        """The text without any secret, and without what a server shows of one, such as `sk-ab***yz`."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        text = _MASKED.sub(HIDDEN, text)
        return _DOTTED.sub(lambda found: HIDDEN if self._echoes(found[1], found[2]) else found[0], text)

    def _echoes(self, start: str, end: str) -> bool:
        return any(
            value.startswith(start) or start.endswith(value[:SHORTEST]) or (len(end) > 1 and value.endswith(end))
            for value in self._values
        )

    def __repr__(self) -> str:
        return f"Secrets({self.endpoint})"


def _credentials(base_url: str) -> set[str]:
    """User, password and values of the query, as written and as meant."""
    parts = urlsplit(base_url)
    written = [parts.username or "", parts.password or "", *(pair.partition("=")[2] for pair in parts.query.split("&"))]
    return {*written, *(unquote(value) for value in written)}


def _variable(name: str, setting: str) -> str:
    value = os.environ.get(name, "").strip()
    shown = f"the environment variable {name}" if _VARIABLE.fullmatch(name) else "the environment variable"
    if not value:
        raise UserError(
            f"{shown} that {setting} names is not set; export it first ({setting} holds the name, never the key itself)"
        )
    return _sendable(value, f"{shown} that {setting} names")


def _sendable(value: str, where: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise UserError(f"{where} holds a character that no header may hold, such as a line break; mend it there")
    return value


def _named_secrets(value: object, name: str = "") -> list[str]:
    """Texts in the run file's body whose names say that they are secret."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _named_secrets(inner, f"{name}.{key}")]
    if isinstance(value, list):
        return [found for inner in value for found in _named_secrets(inner, name)]
    return [value] if isinstance(value, str) and _NAMES.search(name) else []


def read_refusal(
    status: int, headers: Mapping[str, str], content: bytes, secrets: Secrets, model: str
) -> Fault | EngineError | UserError:
    """What a reply without a usable body means.

    Args:
        headers: by their names, in any case.
    """
    where, (message, codes) = f"{model} at {secrets.endpoint}", _message(content)
    message = secrets.redact(message)[:QUOTED]
    if status in {401, 403}:
        return UserError(
            f"the key for {where} is refused ({status}); check the variable that engine.key_variable names"
        )
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
        return Fault(f"status {status}: {message}", wait=wished_wait(named), outage=status in BUSY or status >= 500)
    return Rejected(f"the endpoint rejects the request ({status}): {message}")


def parsed_reply(content: bytes) -> Any:
    """The JSON of a reply; halves of surrogate pairs, which no table can hold, become U+FFFD.

    Raises:
        Fault: no JSON, or too deep, or a number with too many digits.
    """
    with contextlib.suppress(*UNLIKE):
        reply = json.loads(content)
        if b"\\ud" in content or b"\\uD" in content:
            reply = json.loads(valid_text(json.dumps(reply, ensure_ascii=False)))
        return reply
    raise Fault("a reply that is no JSON" if content else "an empty reply", tokens=None)


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
        elif re.fullmatch(r"[\d.]+", value := headers.get("retry-after", "").strip()):
            seconds = float(value)
        else:
            then = parsedate_to_datetime(value)
            seconds = ((then if then.tzinfo else then.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _message(content: bytes) -> tuple[str, set[str]]:
    """What an error's body says in words, and its codes."""
    text = " ".join(content.decode("utf-8", "replace").split())
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(content)
        error = body.get("error", body) if isinstance(body, dict) else body
        if isinstance(error, dict):
            words = (error[name] for name in ("message", "detail", "error") if isinstance(error.get(name), str))
            codes = {str(error[name]) for name in ("code", "type") if error.get(name)}
            return " ".join(next(words, text).split()), codes
        return (error if isinstance(error, str) else text), set()
    return text, set()
