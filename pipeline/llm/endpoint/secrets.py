"""What an endpoint is told in confidence, and how it is kept out of every message."""

import base64
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipeline.config import LanguageModel
from pipeline.errors import UserError

HIDDEN = "***"
SHORTEST = 4
"""Values with fewer characters are not looked for in messages: they are no secrets, and words hold them by chance."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,12}")
"""Names of variables that messages repeat; anything else may be a key that was pasted there."""
_NAMES = re.compile(r"key|token|secret|passw|auth", re.IGNORECASE)
_MASKED = re.compile(r"[\w-]{0,16}(?:[*•]{2,}|…)[\w-]{0,16}")
_DOTTED = re.compile(r"([\w-]{2,16})(?:\.{3,}|[xX]{3,})([\w-]{0,16})")


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
            headers[known] = _sendable(_header_value(name, value), f"engine.headers.{name}")
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


def _header_value(name: str, value: str) -> str:
    return _variable(value[4:], f"engine.headers.{name}") if value.startswith("env:") else value


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
