"""How many requests a second reach an endpoint, beside what the endpoint could answer.

A server in a process of its own answers every request after LATENCY seconds, so that PLACES in flight make at most
PLACES / LATENCY requests a second. Two clients take turns: a bare one, which sends the same bytes over and over and looks
at nothing, and the program's own. The last line is JSON:

    fraction_of_ideal   the program's requests a second over PLACES / LATENCY, median of the rounds
    fraction_of_bare    over those of the bare client, median of the rounds
    requests_per_second of the program
    cpu_ms              CPU time of the program's process for a request

Run it with `python -m tests.benchmarks.bench_endpoint [--requests 4000] [--rounds 3]`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.bodies import CHAT
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.reading import keep_replies
from pipeline.llm.endpoint.replies import Replies
from pipeline.llm.endpoint.sender import Sender

PLACES = 64
LATENCY = 0.05
IDEAL = PLACES / LATENCY
SERVER = ("-m", "tests.pipeline.llm.endpoint.loopback", "--latency", str(LATENCY))


@dataclass(frozen=True)
class Round:
    """What one client did."""

    requests: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class BareConnection(asyncio.Protocol):
    """Sends and notices that something comes back."""

    def __init__(self) -> None:
        self.came: asyncio.Future[None]
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.came.done():
            self.came.set_result(None)


async def send_bare(url: str, requests: int) -> None:
    """One request after the other on each of PLACES connections."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    place = (parts.hostname, parts.port)
    body = json.dumps({"model": "m", **question(0)}).encode()
    head = f"POST {parts.path}{CHAT} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    numbers = iter(range(requests))

    async def work() -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(BareConnection, *place)
        for _ in numbers:
            connection.came = loop.create_future()
            connection.transport.write(head.encode() + body)
            await connection.came
        connection.transport.close()

    await asyncio.gather(*(work() for _ in range(PLACES)))


def question(number: int) -> dict[str, object]:
    """A prompt of about 6 KB, as an explainer sends, unlike any other."""
    lines = "".join(f"token{number + place}\t{place % 11}\n" for place in range(440))
    system = "The activations of a unit on some texts are shown. Say what it fires for. " * 6
    messages = [{"role": "system", "content": system}, {"role": "user", "content": lines}]
    return {"messages": messages, "max_tokens": 60, "temperature": 1.0, "seed": number}


async def send_by_sender(url: str, requests: int) -> None:
    """Twice as many tasks as places, as units that wait for a place."""
    numbers = iter(range(requests))
    config = LanguageModel(model="m", base_url=url, concurrency=PLACES)

    async def work(sender: Sender) -> None:
        for number in numbers:
            body = question(number)
            await sender.ask(CHAT, body, tokens_at_most=60, keep=lambda reply: keep_replies(reply, 1, False))

    with tempfile.TemporaryDirectory() as folder:
        replies = Replies(Path(folder), "0-of-1")
        sender = Sender(config, replies, Ledger.of(Budget(), config, replies))
        await asyncio.gather(*(work(sender) for _ in range(2 * PLACES)))
        await sender.aclose()


def measured(client: Callable[[str, int], object], url: str, requests: int) -> Round:
    """One round of a client."""
    started, cpu = time.perf_counter(), time.process_time()
    client(url, requests)
    return Round(requests, time.perf_counter() - started, time.process_time() - cpu)


@contextmanager
def server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = subprocess.Popen([sys.executable, *SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Print each round and the summary."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--requests", type=int, default=4000)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    rounds: list[tuple[Round, Round]] = []
    print(f"{'round':>5} {'bare':>8} {'program':>8} requests/s {'CPU':>6} ms a request")
    for number in range(chosen.rounds):
        with server() as url:
            bare = measured(lambda to, count: asyncio.run(send_bare(to, count)), url, chosen.requests)
            own = measured(lambda to, count: asyncio.run(send_by_sender(to, count)), url, chosen.requests)
        rounds.append((bare, own))
        print(f"{number:>5} {bare.rate:>8.0f} {own.rate:>8.0f} {'':>10} {1e3 * own.cpu_seconds / own.requests:>6.3f}")
    figures = {
        "fraction_of_ideal": statistics.median(own.rate for _, own in rounds) / IDEAL,
        "fraction_of_bare": statistics.median(own.rate / bare.rate for bare, own in rounds),
        "requests_per_second": statistics.median(own.rate for _, own in rounds),
        "cpu_ms": 1e3 * statistics.median(own.cpu_seconds / own.requests for _, own in rounds),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
