"""Asks a few questions in batches, and writes down each answer; run by itself it can be killed.

python -m tests.pipeline.llm.endpoint.batch_run URL FOLDER WORKER FIRST LAST
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.batch import BatchSender
from pipeline.llm.endpoint.batch_files import Timing
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask
from tests.pipeline.llm.endpoint.sending import endpoint_of

if TYPE_CHECKING:
    from tests.pipeline.llm.endpoint.model_server import ModelServer

Found = list[Answer | BaseException]
QUICK = Timing(quiet=0.05, poll=0.05, longest=0.2)


def question(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 3, "temperature": 0}


async def answers(
    url: str,
    folder: Path,
    numbers: Sequence[int],
    worker: str = "0-of-1",
    budget: Budget | None = None,
    path: str = "/chat/completions",
    **settings: Any,
) -> Found:
    """The answer to each question, or its error; the replies are kept in FOLDER/_replies."""
    values: dict[str, Any] = {"model": "tiny", "base_url": url, "retries": 2, "mode": "batch"}
    config = LanguageModel(**(values | settings))
    endpoint = endpoint_of(config, folder / "_replies", budget, worker)
    sender = BatchSender(endpoint, QUICK)
    bodies = [question(number) if path == "/chat/completions" else plain(number) for number in numbers]
    try:
        asks = (sender.ask(Ask(path, body, kept)) for body in bodies)
        return list(await asyncio.gather(*asks, return_exceptions=True))
    finally:
        await sender.aclose()
        await endpoint.aclose()


def plain(number: int) -> dict[str, Any]:
    return {"prompt": f"Question {number}", "max_tokens": 3, "temperature": 0}


def kept(reply: dict[str, Any]) -> dict[str, Any]:
    choice = reply["choices"][0]
    return {"text": choice["message"]["content"] if "message" in choice else choice["text"]}


def ask(server: "ModelServer", folder: Path, numbers: Sequence[int], **settings: Any) -> Found:
    """`answers`, from a server."""
    return asyncio.run(answers(server.url, folder, numbers, **settings))


def texts(found: Found) -> list[str]:
    """The texts of answers, none of which may be an error."""
    assert all(isinstance(answer, Answer) for answer in found), found
    return [answer.body["text"] for answer in found if isinstance(answer, Answer)]


def expected(server: "ModelServer", numbers: Sequence[int]) -> list[str]:
    """What the model says itself."""
    tokens = [server.model.reply(server.model.chat_ids(question(n)["messages"]), 3, 0.0, 0, ())[0] for n in numbers]
    return [server.model.text(ids) for ids in tokens]


def files(folder: Path) -> list[str]:
    """The batches that are not used up."""
    return sorted(file.name for file in (folder / "_replies" / "batches").iterdir())


if __name__ == "__main__":
    url, folder, worker, first, last = sys.argv[1:]
    found = asyncio.run(answers(url, Path(folder), range(int(first), int(last)), worker))
    assert all(isinstance(answer, Answer) for answer in found), found
