"""How many tokens a prompt has at most, before a tokenizer behind an endpoint says so."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOKENS_A_MESSAGE = 16
"""What a chat template adds to a message at most."""
TOKENS_A_PROMPT = 64
"""What a chat template adds to a conversation at most, such as a system text of its own."""
KNOWN_FROM = 8
"""Replies after which the largest number of tokens a byte that was seen replaces the safe bound."""
MARGIN = 1.25
"""Times the largest seen."""


@dataclass(frozen=True)
class Size:
    """A prompt before it is tokenised."""

    path: str
    bytes: int = 0
    """Of its texts, in UTF-8."""
    tokens: int = 0
    """Of its token ids and of what a template adds."""


class PromptSizes:
    """Upper bounds of the tokens of prompts.

    A tokenizer that works on bytes makes no more tokens than there are bytes; that is the bound until KNOWN_FROM replies
    of the same path say how many tokens a byte really makes.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = defaultdict(int)
        self._largest: dict[str, float] = defaultdict(float)

    def at_most(self, size: Size) -> int:
        """Tokens of the prompt."""
        known = self._seen[size.path] >= KNOWN_FROM
        rate = min(1.0, MARGIN * self._largest[size.path]) if known else 1.0
        return math.ceil(size.bytes * rate) + size.tokens

    def learn(self, size: Size, tokens: int) -> None:
        """Take note of the tokens that an endpoint counted."""
        if size.bytes:
            self._seen[size.path] += 1
            self._largest[size.path] = max(self._largest[size.path], tokens / size.bytes)


def size_of(path: str, body: Mapping[str, Any]) -> Size:
    """The size of a request's prompt; a JSON schema counts to it, for some servers show it to the model."""
    tokens = TOKENS_A_PROMPT
    texts: list[str] = []
    for message in body.get("messages", ()):
        content = message["content"]
        texts.append(content if isinstance(content, str) else json.dumps(content))
        tokens += TOKENS_A_MESSAGE
    prompts = body.get("prompt", ())
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
        prompts = [prompts]
    for prompt in prompts:
        if isinstance(prompt, str):
            texts.append(prompt)
        else:
            tokens += len(prompt)
    if "response_format" in body:
        texts.append(json.dumps(body["response_format"]))
    return Size(path, sum(len(text.encode("utf-8", "surrogatepass")) for text in texts), tokens)
