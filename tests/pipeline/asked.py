"""Stages run with an engine that counts what it is asked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.execution.runner import run_stage
from pipeline.llm.engine import Capabilities, Completion, Message, NumberPrompt, NumberScores, Request
from pipeline.llm.prompt_encoder import PromptEncoder
from stages import STAGES


class Asked:
    """An engine that counts what it is asked and gives usable replies; numbers are all alike."""

    name = "asked@1"
    context = None

    def __init__(self, tokenizer: Any, reply: Callable[[Request, int], str]) -> None:
        """reply: to a request, given the number of the reply among those to it."""
        self.reply = reply
        self.encoder = PromptEncoder(tokenizer)
        self.calls = self.prompt_tokens = 0
        self.questions: list[str] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self.encoder.conversation(messages).ids)

    async def capabilities(self) -> Capabilities:
        return Capabilities(20, reply_numbers=True, prompt_numbers=True, json_schema=True, n=True, seed=True)

    async def complete(self, request: Request) -> list[Completion]:
        self.calls += 1
        self.questions.append(request.messages[-1].content)
        tokens = self.count_tokens(request.messages)
        self.prompt_tokens += tokens
        return [Completion(self.reply(request, number), tokens, 12, finished=True) for number in range(request.n)]

    async def score(self, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
        return [self._scored(passage) for passage in passages]

    def _scored(self, passage: NumberPrompt) -> NumberScores:
        self.calls += 1
        tokens = self.count_tokens(passage.messages)
        if passage.reply:
            tokens += sum(len(piece) for piece in self.encoder.reply(passage.reply))
        self.prompt_tokens += tokens
        slots = len(passage.slots)
        return NumberScores(np.full((slots, 11), 1 / 11, np.float32), np.ones(slots, np.float32), "", tokens, 1)

    def mark_useless(self, requests: Sequence[Request]) -> None:
        pass

    async def aclose(self) -> None:
        pass


def run(config: RunConfig, *names: str) -> None:
    for name in names:
        progress = run_stage(STAGES[name], config, STAGES, show=False)
        assert progress.finished
        assert progress.failed_rows == 0
