"""One connection to an endpoint: HTTP/1.1 by h11, straight on asyncio's transports."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import h11

CONNECT = 30.0
"""Seconds until a connection must stand."""
KEEP_ALIVE = 50.0
"""Seconds after which an unused connection is not used again; servers close theirs after a minute or so."""
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class HttpReply:
    """A whole reply; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class NoConnection(Exception):
    """No connection could be made; nothing was sent."""


class Broken(Exception):
    """The reply ended too early, or is not HTTP."""


class Connection(asyncio.Protocol):
    """Carries one request after the other. Whoever cancels a request, for a time-out say, has to `close` it."""

    def __init__(self) -> None:
        self._http = h11.Connection(our_role=h11.CLIENT)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._used = 0.0

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> "Connection":
        """A new connection.

        Raises:
            NoConnection: with the OSError as its cause.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT):
                return (await loop.create_connection(cls, host, port, ssl=tls, happy_eyeballs_delay=0.25))[1]
        except OSError as error:  # TimeoutError among them
            raise NoConnection(str(error) or f"no answer within {CONNECT:g} s") from error

    @property
    def fresh(self) -> bool:
        """Whether another request can be sent."""
        return not self._closed and asyncio.get_running_loop().time() - self._used < KEEP_ALIVE

    async def post(self, target: bytes, headers: Headers, content: bytes) -> HttpReply:
        """The reply to a request.

        Raises:
            Broken: the connection ended before the reply did, or it is not HTTP.
        """
        http = self._http
        request = h11.Request(method=b"POST", target=target, headers=headers)
        pieces = (http.send(request), http.send(h11.Data(data=content)), http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(piece for piece in pieces if piece))
        try:
            head = await self._next_event()
            while isinstance(head, h11.InformationalResponse):
                head = await self._next_event()
            assert isinstance(head, h11.Response)
            body = bytearray()
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError as error:
            raise Broken(str(error)) from None
        if http.our_state is h11.DONE and http.their_state is h11.DONE and not self._closed:
            http.start_next_cycle()
            self._used = asyncio.get_running_loop().time()
        else:
            self.close()
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return HttpReply(head.status_code, named, bytes(body))

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._closed:
                raise Broken("the server closed the connection before it replied")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return event

    def close(self) -> None:
        """Drop the connection at once."""
        self._closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._used = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._wake()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._http.receive_data(b"")  # some replies end with the connection
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
