"""A sender on a loopback server, and a question to it."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.budget import SharedBudget
from pipeline.llm.endpoint.circuit import Backoff
from pipeline.llm.endpoint.client import CHAT, Client
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.llm.endpoint.sender import Ask, Endpoint, Sender
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply


def endpoint_of(config: LanguageModel, folder: Path, limit: Budget | None = None, worker: str = "0-of-1") -> Endpoint:
    """What requests to an endpoint share, as `open_endpoint` makes it."""
    client = Client(config)
    cache = ResponseCache(folder, worker)
    return Endpoint(config, client, cache, SharedBudget(limit or Budget(), config, cache))


@asynccontextmanager
async def sending(
    server: Loopback, folder: Path, limit: Budget | None = None, backoff: Backoff | None = None, **settings: Any
) -> AsyncIterator[Sender]:
    """A sender whose waits are short."""
    values: dict[str, Any] = {
        "model": "m",
        "base_url": server.base_url,
        "retries": 2,
        "timeout": 5.0,
        "price_in": 1.0,
        "price_out": 2.0,
    }
    endpoint = endpoint_of(LanguageModel(**(values | settings)), folder, limit)
    try:
        yield LiveSender(endpoint, backoff or Backoff("", first=0.002))
    finally:
        await endpoint.aclose()


def texts(reply: dict[str, Any]) -> dict[str, Any]:
    return {"texts": [choice["message"]["content"] for choice in reply["choices"]]}


async def ask(sender: Sender, name: object = 1, attempt: int = 0) -> Answer:
    body = {"messages": [{"role": "user", "content": f"question {name}"}], "max_tokens": 10}
    return await sender.ask(Ask(CHAT, body, texts, attempt))


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return chat_reply(body["messages"][0]["content"].upper())


def fill_disk(cache: ResponseCache) -> None:
    """Let the file of the cache have no page more than now."""
    own: sqlite3.Connection = vars(cache)["_own"]
    (pages,) = own.execute("PRAGMA page_count").fetchone()
    own.execute(f"PRAGMA max_page_count = {pages}")
