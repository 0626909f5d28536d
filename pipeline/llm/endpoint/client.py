"""The openai client of an endpoint: its keys, its proxy, its limits, and what an exception of it means."""

import asyncio
import contextlib
import json
import logging
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx2
from openai import APIStatusError, AsyncOpenAI, DefaultAioHttpClient, OpenAIError, Timeout
from openai._vendor.httpx_aiohttp.transport import AiohttpResponseStream, AiohttpTransport

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.faults import (
    QUOTED,
    UNLIKE,
    Fault,
    NotFound,
    Secrets,
    embedded_status,
    parsed_reply,
    read_refusal,
)
from pipeline.llm.engine import EngineError

Json = dict[str, Any]
CHAT = "/chat/completions"
PLAIN = "/completions"

CONNECT_SECONDS = 30.0
REST_SECONDS = 0.005
"""For which a connection rests after a reply; requests wait for it, so that no more connections are opened than are needed."""
KEEP_ALIVE_SECONDS = 50.0
"""Seconds after which an unused connection is not used again; servers close theirs after a minute or so."""
MOST_BYTES = 64 * 2**20
"""Of a reply; a longer one is given up while it comes in. Results of batches go to a file and may be longer."""
CONTEXT_KEYS = ("max_model_len", "context_length", "max_context_length", "context_window")
LISTED = 20
"""Models of an endpoint that a message names at most."""

ERRORS = (OpenAIError, aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""What the client raises where no usable reply came."""
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_LOGGERS = ("openai", "httpx2", "aiohttp")  # they log addresses and headers, and so does OPENAI_LOG=debug
_HEADERS = re.compile(r"host|accept.*|connection|content-.*|transfer-encoding|user-agent|x-stainless-.*")
"""Headers of any request, by their names in lower case."""


class TooLong(aiohttp.ClientError):
    """A reply does not end."""


class Client:
    """Sends requests once, over connections that are kept open, and follows no redirect."""

    def __init__(self, config: LanguageModel) -> None:
        """
        Raises:
            UserError: an environment variable with a key or a header is not set.
        """
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.secrets = Secrets.of(config)
        self._model, self._timeout = config.model, config.timeout
        self._listed: list[Json] | None = None
        self.heard = 0
        """Replies of any kind that came so far."""
        self.openai = AsyncOpenAI(
            base_url=self.secrets.endpoint,
            api_key="none",
            default_headers=self.secrets.headers,
            default_query=dict(parse_qsl(self.secrets.query, keep_blank_values=True)),
            max_retries=0,
            http_client=DefaultAioHttpClient(
                transport=_transport(self.secrets.endpoint, config.concurrency),
                timeout=Timeout(config.timeout, connect=CONNECT_SECONDS),
                follow_redirects=False,
                event_hooks={"request": [self._only_own_headers]},
            ),
        )

    async def post(self, path: str, content: bytes) -> Json:
        """The reply to one request, CHAT or PLAIN, whose body is sent as it is.

        Raises:
            Fault: no usable reply came; another try may bring one.
            PromptTooLong, Rejected: the endpoint does not take the request.
            NotFound, UserError: nothing can be asked: wrong key, unknown model, no credit, a certificate not trusted.
        """
        try:
            async with asyncio.timeout(self._timeout):
                response = await self.openai.post(path, cast_to=httpx2.Response, content=content)
        except ERRORS as error:
            problem = self.problem(error)
        else:
            self.heard += 1
            reply = parsed_reply(response.content)
            if (status := embedded_status(reply)) is None:
                return reply
            problem = read_refusal(status, response.headers, response.content, self.secrets, self._model)
        if isinstance(problem, NotFound):
            with contextlib.suppress(EngineError):
                problem = NotFound(f"{problem}{listed_models([str(entry.get('id')) for entry in await self.models()])}")
        raise problem  # here, so that no request with its headers hangs on it

    async def models(self) -> list[Json]:
        """What the endpoint says of its models, asked once; empty where it has no such list.

        Raises:
            EngineError: no answer comes.
        """
        if self._listed is None:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self.openai.with_options(max_retries=2).models.with_raw_response.list()
                self._listed = [entry for entry in json.loads(response.content)["data"] if isinstance(entry, dict)]
            except (APIStatusError, *UNLIKE):
                self._listed = []
            except ERRORS:
                pass
        if self._listed is None:
            raise EngineError("the list of models does not come")
        return self._listed

    def problem(self, error: Exception) -> Fault | EngineError | UserError:
        """What an exception out of ERRORS means."""
        if isinstance(error, APIStatusError):
            self.heard += 1
            response = error.response
            return read_refusal(response.status_code, response.headers, response.content, self.secrets, self._model)
        causes = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)  # type: ignore[arg-type]
        if any(isinstance(cause, aiohttp.ClientConnectorCertificateError) for cause in causes):
            return UserError(
                f"the certificate of {self.secrets.endpoint} is not trusted; set SSL_CERT_FILE to one that is"
            )
        if isinstance(error, TimeoutError):
            return Fault(f"no reply within {self._timeout:g} s", outage=True, tokens=None)
        source = next((cause for cause in causes if isinstance(cause, aiohttp.ClientError)), error)
        if isinstance(source, TooLong):
            return Fault(str(source), tokens=None)
        said = self.secrets.redact(str(source) or type(source).__name__)[:QUOTED]
        if isinstance(source, _NOT_SENT):
            return Fault(f"no connection: {said}", answered=False, outage=True)
        return Fault(f"the connection broke: {said}", outage=True, tokens=None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.openai.close()

    async def _only_own_headers(self, request: Any) -> None:
        """Take off what the client adds from the environment; the run file alone says what an endpoint is told.

        Replies are wanted as they are: a packed one could be a thousand times longer than what comes in.
        """
        request.headers["accept-encoding"] = "identity"
        own = {name.lower() for name in self.secrets.headers}
        for name in list(request.headers):
            if name not in own and not _HEADERS.fullmatch(name):
                del request.headers[name]


def listed_models(names: Sequence[str]) -> str:
    """The end of a sentence that names the models that an endpoint lists; empty without any."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; the endpoint lists {', '.join(names[:LISTED])}{more}" if names else ""


def context_of(models: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """The tokens that a list of models says a model reads at once; None where it does not say."""
    found = [entry for entry in models if entry.get("id") == name] or (models if len(models) == 1 else [])
    said = [entry.get(key) for entry in found for key in CONTEXT_KEYS]
    said += [meta.get("n_ctx") for entry in found if isinstance(meta := entry.get("meta"), dict)]
    return next((value for value in said if isinstance(value, int) and value > 0), None)


def _transport(endpoint: str, connections: int) -> AiohttpTransport:
    """openai's aiohttp transport by the environment's proxy, with as many connections as requests are in flight."""
    parts = urlsplit(endpoint)
    bypassed = urllib.request.proxy_bypass(parts.hostname or "")
    proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
    transport = _Transport()
    transport.client = lambda: aiohttp.ClientSession(
        connector=_Connector(ssl=transport.ssl_context, limit=connections, keepalive_timeout=KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
    )
    return transport


class _Transport(AiohttpTransport):
    """Gives up a reply that is too long."""

    async def handle_async_request(self, request: Any) -> Any:
        """The response, whose body is counted while it is read, unless its size is known and small."""
        response = await super().handle_async_request(request)
        packed = response.headers.get("content-encoding", "identity") != "identity"
        size = response.headers.get("content-length", "")
        small = size.isdecimal() and len(size) < len(str(MOST_BYTES)) and not packed
        if not small and not request.url.path.endswith("/content"):
            response.stream = _Bounded(response.stream, MOST_BYTES // 1000 if packed else MOST_BYTES)
        return response


class _Bounded(AiohttpResponseStream):
    """A body that is no longer than a limit, in bytes."""

    def __init__(self, body: Any, limit: int) -> None:
        self._body, self._limit = body, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._body:
            if (size := size + len(part)) > self._limit:
                raise TooLong(f"a reply of more than {self._limit:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


class _Connector(aiohttp.TCPConnector):
    """Gives out no connection on which something came unasked: it would be taken for the reply to the next request.

    So that it is seen, a connection rests before it is used again.
    """

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        give_back = partial(super()._release, key, protocol, should_close=should_close)
        if should_close or self._closed:
            give_back()
        else:
            self._loop.call_later(REST_SECONDS, give_back)

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        """A connection that is new or clean."""
        while True:
            connection = await super().connect(*arguments, **named)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
