"""Who may ask a server: pages of its own and programs, not pages of others, and beyond this machine only with a token.

A page of somebody else can send requests to loopback, and by DNS rebinding under a name that it controls. It cannot choose the headers
Host, Origin and Sec-Fetch-Site that a browser sends with them.
"""

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
START_PAGES = re.compile(r"/(run/[^/]+/?)?(index\.html)?")
"""What a link on another page may lead to."""


class Guard:
    """Lets a request through to the server, or refuses it; adds security headers to every answer."""

    def __init__(self, app: ASGIApp, names: Collection[str], token: str | None) -> None:
        """
        Args:
            names: host names that the server answers to; with a token, to every numeric address as well.
            token: what every request has to show; None where nobody else can reach the server.
        """
        self._app, self._token = app, token
        self._names = LOOPBACK | {name.lower() for name in names}
        self._cookie = (
            "neurogloss-" + hashlib.sha256((token or "").encode()).hexdigest()[:8]
        )  # ports share their cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            raise RuntimeError("only HTTP is served")
        if refused := self._foreign(scope, headers):
            await _answer(with_headers, 403, refused)
        elif self._token is None:
            await self._app(scope, receive, with_headers)
        elif self._same(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]):
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(with_headers, 303, "", {"Location": scope["path"], "Set-Cookie": cookie})
        elif self._shown(headers):
            await self._app(scope, receive, with_headers)
        else:
            asked = "open the address that the server has printed, or send the header Authorization: Bearer TOKEN"
            await _answer(with_headers, 401, f"a token is needed; {asked}", {"WWW-Authenticate": "Bearer"})

    def _foreign(self, scope: Scope, headers: Headers) -> str:
        """Why a request is not one of this server's own pages or of a program; empty where it is."""
        host = headers.get("host", "")
        if not self._known(host):
            return f"Host {host[:100]!r} is not a name of this server; open it by its address, or start it with --host NAME"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"Origin {origin[:100]!r} is another page"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if not (opened and scope["method"] == "GET" and START_PAGES.fullmatch(scope["path"])):
                return "the request comes from another page"
        return ""

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._token is not None  # rebinding needs a name

    def _shown(self, headers: Headers) -> bool:
        """Whether a request shows the token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._same(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._same(cookie.value)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode()) and bool(self._token)


async def _answer(send: Send, status: int, error: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    start: Message = {"type": "http.response.start", "status": status, "headers": []}
    MutableHeaders(scope=start).update(
        {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
    )
    await send(start)
    await send({"type": "http.response.body", "body": body})
