"""The replies of the loopback server under a fault; its docstring lists the faults."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
CODES = {"quota": (429, "insufficient_quota"), "context": (400, "context_length_exceeded")}
UNREAD = {"400", "401", "403", "404", "408", "409", "413", "422", "429", "500", "503", "moved", "refuse", *CODES}
"""Faults for which no token was read or written."""


def refused(fault: str, argument: str, echoed: str, elsewhere: str) -> tuple[bytes, bool]:
    """The reply to a request that the server does not work on, and whether the connection is closed after it."""
    if fault == "refuse":
        return b"", True
    if fault == "moved":
        return http_reply(307, {}, f"Location: {elsewhere}\r\n"), False
    status, code = CODES.get(fault) or (int(fault), None)
    extra = ""
    if argument:
        name, value = ("retry-after-ms", argument[:-2]) if argument.endswith("ms") else ("Retry-After", argument)
        extra = f"{name}: {value}\r\n"
    message = f"status {status}{f', {code}' if code else ''}{echoed}"
    return http_reply(status, {"error": {"message": message, "type": "error", "code": code}}, extra), False


def spoilt(fault: str, reply: Json) -> tuple[bytes, bool]:
    """A reply under a fault, and whether the connection is closed after it."""
    if fault in {"reset", "silent"}:
        return b"", True
    if fault == "empty":
        return _bytes(200, b""), False
    if fault == "garbage":
        return _bytes(200, b"<html>busy</html>"), False
    text = json.dumps(CHANGES[fault](reply)).encode() if fault in CHANGES else json.dumps(reply).encode()
    if fault == "truncated":
        return _bytes(200, text[: len(text) // 2]), False
    whole = _bytes(200, text)
    return (whole[: len(whole) - len(text) // 2], True) if fault == "drop" else (whole, False)


def _message_with(**fields: Any) -> Callable[[Json], Json]:
    def change(reply: Json) -> Json:
        choices = [choice | {"message": choice["message"] | fields} for choice in reply["choices"]]
        return reply | {"choices": choices}

    return change


def _text_changed(change: Callable[[str], str]) -> Callable[[Json], Json]:
    def changed(reply: Json) -> Json:
        return json.loads(json.dumps(reply), object_hook=lambda found: _texts(found, change))

    return changed


def _texts(found: Json, change: Callable[[str], str]) -> Json:
    return found | {name: change(found[name]) for name in ("content", "text") if isinstance(found.get(name), str)}


def _without_last(text: str) -> str:
    """A JSON list without its last item, or a text without its last line."""
    try:
        value = json.loads(text)
    except ValueError:
        return text.rpartition("\n")[0]
    return json.dumps(value[:-1]) if isinstance(value, list) else text[:-1]


def _nan(found: Json) -> Json:
    return found | ({"logprob": math.nan} if "logprob" in found else {})


CHANGES: dict[str, Callable[[Json], Json]] = {
    "refusal": _message_with(content=None, refusal="I cannot help with that."),
    "blank": _message_with(content=""),
    "wrong_model": lambda reply: reply | {"model": "another-model"},
    "nan": lambda reply: json.loads(json.dumps(reply), object_hook=_nan),
    "out_of_range": _text_changed(lambda text: re.sub(r"\d+", "99", text)),
    "wrong_length": _text_changed(_without_last),
}


def http_reply(status: int, body: Json, extra: str = "") -> bytes:
    return _bytes(status, json.dumps(body).encode(), extra)


def _bytes(status: int, content: bytes, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content
