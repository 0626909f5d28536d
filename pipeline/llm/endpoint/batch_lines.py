"""The lines of a batch: requests that wait for theirs, and what a line with a result means."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.llm.endpoint.faults import QUOTED, Fault, embedded_status, read_refusal
from pipeline.llm.endpoint.pot import Amount
from pipeline.llm.endpoint.replies import Answer
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.endpoint.sender import GARBAGE, usage_of
from pipeline.llm.endpoint.sizes import PromptSizes, Size

Json = dict[str, Any]
MOST_REQUESTS = 50_000
MOST_BYTES = 150_000_000
"""Of one batch; OpenAI takes 200 MB."""


@dataclass
class Waiting:
    """A request whose reply somebody waits for."""

    path: str
    content: bytes
    size: Size
    tokens_at_most: int
    keep: Callable[[Json], Json]
    reply: asyncio.Future[Answer]
    reserved: Amount | None = None
    """None where its tokens are settled already."""
    tries: int = 0
    said: str = ""


@dataclass
class Job:
    """A batch under way or done."""

    name: str
    own: bool
    left: set[bytes] = field(default_factory=set)
    """Requests whose results are not used yet."""
    error: BaseException | None = None
    """What stopped the work on it; another run goes on with it."""


class LineReader:
    """Reads results."""

    def __init__(self, secrets: Secrets, model: str, sizes: PromptSizes) -> None:
        self._secrets, self._model, self._sizes = secrets, model, sizes

    def read(self, waiting: Waiting, row: Json) -> tuple[Answer | Fault | Exception, int, int]:
        """What a line of results means, and the tokens that it took."""
        response = row.get("response")
        if not isinstance(response, dict) or not isinstance(response.get("status_code"), int):
            error = row.get("error")
            words = error.get("message") or error.get("code") if isinstance(error, dict) else None
            return Fault(self._secrets.redact(str(words or "no result"))[:QUOTED]), 0, 0
        body = response.get("body")
        status = response["status_code"] if response["status_code"] != 200 else embedded_status(body)
        if status is not None:
            return read_refusal(status, {}, json.dumps(body).encode(), self._secrets, self._model), 0, 0
        read, written = usage_of(body)
        if read:
            self._sizes.learn(waiting.size, read)
        read = read or self._sizes.at_most(waiting.size)
        written = waiting.tokens_at_most if written is None else written
        try:
            return Answer(waiting.keep(body), read, written), read, written  # type: ignore[arg-type]
        except GARBAGE as error:
            words = self._secrets.redact(f"{type(error).__name__}: {error}")[:QUOTED]
            return Fault(f"a reply without what was asked for: {words}"), read, written


def next_group(pending: Sequence[bytes], waiting: Mapping[bytes, Waiting]) -> tuple[list[bytes], list[bytes]]:
    """As many pending requests to one path as a batch can hold, at least one, and those that are left."""
    path, size = waiting[pending[0]].path, 0
    group: list[bytes] = []
    for key in pending:
        if waiting[key].path != path or len(group) >= MOST_REQUESTS:
            continue
        size += len(waiting[key].content) + 200
        if group and size > MOST_BYTES:
            break
        group.append(key)
    taken = set(group)
    return group, [key for key in pending if key not in taken]


def limit_of(body: Json) -> int:
    """The tokens that the replies to a request may have."""
    prompts = body.get("prompt")
    several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0) * int(body.get("n") or 1) * several
