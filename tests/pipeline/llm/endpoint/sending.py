"""A sender on a loopback server, and a question to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.patience import Patience
from pipeline.llm.endpoint.replies import Replies
from pipeline.llm.endpoint.sender import Answer, Sender
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply

CHAT = "/chat/completions"


@asynccontextmanager
async def sending(
    server: Loopback, folder: Path, limit: Budget | None = None, patience: Patience | None = None, **settings: Any
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
    config = LanguageModel(**(values | settings))
    replies = Replies(folder, "0-of-1")
    ledger = Ledger.of(limit or Budget(), config, replies)
    sender = Sender(config, replies, ledger, patience or Patience("", first=0.002))
    try:
        yield sender
    finally:
        await sender.aclose()


def texts(reply: dict[str, Any]) -> dict[str, Any]:
    return {"texts": [choice["message"]["content"] for choice in reply["choices"]]}


async def ask(sender: Sender, name: object = 1, attempt: int = 0) -> Answer:
    body = {"messages": [{"role": "user", "content": f"question {name}"}], "max_tokens": 10}
    return await sender.ask(CHAT, body, attempt, tokens_at_most=10, keep=texts)


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return chat_reply(body["messages"][0]["content"].upper())
