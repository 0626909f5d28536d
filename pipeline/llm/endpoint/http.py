"""Requests over HTTP: one connection for each place in flight, and package openai for all that is not in haste."""

import asyncio
import logging
import ssl
import urllib.request
from functools import cached_property
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI

from pipeline.errors import UserError
from pipeline.llm.endpoint.connection import Broken, Connection, Headers, HttpReply, NoConnection
from pipeline.llm.endpoint.secrets import Secrets

_LOGGERS = ("openai", "httpx2", "httpcore2")
_FROM_ELSEWHERE = {"authorization", "openai-organization", "openai-project"}
"""Headers that package openai fills by itself; the run file alone says what an endpoint is told."""


class TransportError(Exception):
    """No whole reply came. The message holds no secret.

    connected: whether there is a server; sent: whether it may have read the request.
    """

    def __init__(self, words: str, *, connected: bool, sent: bool) -> None:
        super().__init__(words)
        self.connected, self.sent = connected, sent


class Connections:
    """Posts requests to an endpoint.

    A connection of its own for each request in flight, and no layers between h11 and the socket, take a third of the CPU
    time of an httpx2 client, whose pool looks through all connections at each request. Where the environment names a proxy,
    an httpx2 client does the work.
    """

    def __init__(self, secrets: Secrets, timeout: float) -> None:
        """timeout: seconds until a whole reply must have come."""
        for name in _LOGGERS:  # they log addresses and headers, and so does OPENAI_LOG=debug
            logging.getLogger(name).setLevel(logging.WARNING)
        self._secrets, self._timeout = secrets, timeout
        self._free: list[Connection] = []
        parts = urlsplit(secrets.endpoint)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._query = f"?{secrets.query}" if secrets.query else ""
        self._root = parts.path
        fixed = {"Host": parts.netloc, "Accept": "application/json", "Content-Type": "application/json"}
        own = {name.lower() for name in secrets.headers}
        headers = {name: value for name, value in fixed.items() if name.lower() not in own} | secrets.headers
        self._headers: Headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        proxied = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(self._host)
        self._post = self._post_by_client if proxied else self._post_directly

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()

    @cached_property
    def client(self) -> AsyncOpenAI:
        """The openai client of the same endpoint, which tries nothing twice and follows no redirect."""
        return AsyncOpenAI(
            base_url=self._secrets.endpoint,
            api_key="none",
            default_headers=self._secrets.headers,
            default_query=dict(httpx2.QueryParams(self._secrets.query)),
            max_retries=0,
            timeout=self._timeout,
            http_client=httpx2.AsyncClient(
                verify=self.ssl_context, timeout=self._timeout, event_hooks={"request": [self._only_own_headers]}
            ),
        )

    async def post(self, path: str, content: bytes) -> HttpReply:
        """The reply to a request with JSON in it.

        Raises:
            TransportError: no whole reply came.
            UserError: the server's certificate is not trusted.
        """
        words, connected = "", True
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(path, content)
        except TimeoutError:
            words = f"no reply within {self._timeout:g} s"
        except (NoConnection, httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if _certificate_refused(error):
                raise UserError(
                    f"the certificate of {self._secrets.endpoint} is not trusted; set SSL_CERT_FILE to one that is"
                ) from None
            words, connected = f"no connection: {error}", False
        except (Broken, httpx2.HTTPError, OSError) as error:
            words = f"the connection broke: {error or type(error).__name__}"
        # Raised here, so that no request with its headers hangs on it.
        raise TransportError(self._secrets.redact(words), connected=connected, sent=connected)

    async def _post_directly(self, path: str, content: bytes) -> HttpReply:
        connection = await self._take()
        headers = [*self._headers, (b"Content-Length", str(len(content)).encode())]
        try:
            reply = await connection.post(f"{self._root}{path}{self._query}".encode(), headers, content)
        except BaseException:
            connection.close()
            raise
        if connection.fresh:
            self._free.append(connection)
        return reply

    async def _take(self) -> Connection:
        """A connection, the one used last if it is still good."""
        while self._free:
            connection = self._free.pop()
            if connection.fresh:
                return connection
            connection.close()
        return await Connection.open(self._host, self._port, self.ssl_context if self._tls else None)

    async def _post_by_client(self, path: str, content: bytes) -> HttpReply:
        client = self.client._client
        address = f"{self._secrets.endpoint}{path}{self._query}"
        response = await client.send(httpx2.Request("POST", address, headers=self._headers, content=content), auth=None)
        return HttpReply(response.status_code, dict(response.headers), response.content)

    async def _only_own_headers(self, request: httpx2.Request) -> None:
        own = {name.lower() for name in self._secrets.headers}
        for name in _FROM_ELSEWHERE - own:
            request.headers.pop(name, None)

    async def aclose(self) -> None:
        """Close all connections that no request uses."""
        for connection in self._free:
            connection.close()
        self._free.clear()
        if "client" in self.__dict__:
            await self.client.close()


def _certificate_refused(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
