"""An OpenAI-compatible server on loopback that says what a test wants and misbehaves on command.

    with Loopback(reply=lambda body: chat_reply("words"), latency=0.05) as server:
        server.script = ["429:2", "drop", "ok"]         # what the next requests meet, in order; then `faults` again
        ... requests to server.base_url ...
    server.requests, server.most_in_flight, server.tokens

`faults` gives the probability of each fault for a request, drawn from `seed`. The faults:

    400 401 403 404 408 409 413 422 429 500 503   that status; "429:VALUE" with Retry-After, "429:1500ms" with retry-after-ms
    quota, context                                a 429 for want of credit, a 400 for a prompt that is too long
    reset, drop, silent, empty                    closed without a reply, amid it, never answered, a reply without a body
    truncated, garbage, moved                     half of the JSON, no JSON, a redirect to `elsewhere`
    refuse                                        closed, and connections are refused for a short while
    refusal, blank, wrong_model                   a reply of this kind, whole otherwise
    nan, out_of_range, wrong_length               log-probabilities, numbers in the text, and the text's length spoilt

The server runs in a thread of its own. `python -m tests.pipeline.llm.endpoint.loopback` runs one in a process, says its
address in one line and its counts, as JSON, on each line that it reads.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from tests.pipeline.llm.endpoint.flaws import UNREAD, http_reply, refused, spoilt

Json = dict[str, Any]
Reply = Callable[[Json], Json]
REFUSING = 0.05
"""Seconds for which `refuse` lasts."""


def chat_reply(*texts: str, prompt_tokens: int = 100, completion_tokens: int = 10) -> Json:
    """A whole reply of /chat/completions with one choice for each text."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    usage["total_tokens"] = prompt_tokens + completion_tokens
    return {"id": "1", "object": "chat.completion", "model": "loopback", "choices": choices, "usage": usage}


class Loopback:
    """The server; a context manager."""

    def __init__(
        self,
        reply: Reply = lambda _: chat_reply("words"),
        latency: float = 0.0,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        script: Iterable[str] = (),
    ) -> None:
        """latency: seconds until a reply."""
        self.reply, self.latency, self.faults = reply, latency, dict(faults or {})
        self.script: deque[str] = deque(script)
        self.elsewhere = ""
        """Where `moved` points."""
        self.echo = False
        """Whether messages of errors repeat the headers and the path of the request."""
        self.requests = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.connections = 0
        self.bytes_read = 0
        self.tokens = 0
        """Read and written, by the usage of all replies that were made, whether they arrived or not."""
        self.met: Counter[str] = Counter()
        """Requests by the fault that they met, or `ok`."""
        self.heads: deque[tuple[str, dict[str, str]]] = deque(maxlen=1000)
        """(path, headers) of the last requests; names of headers are in lower case."""
        self.bodies: deque[Json] = deque(maxlen=1000)
        self.port = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self.open: set[asyncio.Transport] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self.listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self.refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop_listening(self) -> None:
        """Drop all connections and refuse new ones until `start_listening`."""
        self._call(self.refuse())

    def start_listening(self) -> None:
        self._call(self.listen())

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(0)

    async def refuse_shortly(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(REFUSING)
            await self.listen()

    def next_fault(self) -> str:
        if self.script:
            return self.script.popleft()
        drawn = self._random.random()
        for fault, probability in self.faults.items():
            drawn -= probability
            if drawn < 0:
                return fault
        return "ok"

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class _Connection(asyncio.Protocol):
    """One connection, which carries one request after the other."""

    def __init__(self, server: Loopback) -> None:
        self.server = server
        self.buffer = bytearray()
        self.pending = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.open.add(transport)
        self.server.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.open.discard(self.transport)
        self.server.in_flight -= self.pending
        self.pending = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.server.bytes_read += len(data)
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self.buffer) < whole:
            return
        content = bytes(self.buffer[end + 4 : whole])
        del self.buffer[:whole]
        method, path, _ = lines[0].split(" ")
        self.answer(method, path, headers, json.loads(content) if content else {})

    def answer(self, method: str, path: str, headers: dict[str, str], body: Json) -> None:
        server = self.server
        server.heads.append((path, headers))
        if method == "GET":
            self.transport.write(http_reply(200, {"object": "list", "data": [{"id": "loopback", "object": "model"}]}))
            return
        server.bodies.append(body)
        server.requests += 1
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        self.pending += 1
        fault, _, argument = server.next_fault().partition(":")
        server.met[fault] += 1
        if fault in UNREAD:
            echoed = f" {path} {json.dumps(headers)}" if server.echo else ""
            reply, close = refused(fault, argument, echoed, server.elsewhere)
        else:
            whole = server.reply(body)
            usage = whole.get("usage") or {}
            server.tokens += usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
            reply, close = spoilt(fault, whole)
        if fault == "refuse":
            asyncio.ensure_future(server.refuse_shortly())  # noqa: RUF006 - the listener holds on to it
        if fault != "silent":
            asyncio.get_running_loop().call_later(server.latency, self.finish, reply, close)

    def finish(self, reply: bytes, close: bool) -> None:
        self.server.in_flight -= min(1, self.pending)
        self.pending = max(0, self.pending - 1)
        if self.transport.is_closing():
            return
        if reply:
            self.transport.write(reply)
        if close:
            self.transport.close()


def main() -> None:
    """A server in this process, until its standard input ends."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--latency", type=float, default=0.0)
    arguments.add_argument("--texts", nargs="*", default=["words"])
    chosen = arguments.parse_args()
    with Loopback(lambda _: chat_reply(*chosen.texts), chosen.latency) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            counts = {"requests": server.requests, "most_in_flight": server.most_in_flight, "tokens": server.tokens}
            sys.stdout.write(json.dumps(counts) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
