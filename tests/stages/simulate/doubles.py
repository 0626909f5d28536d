"""Hand-written engines for tests of the simulators, and replies such as a model that follows the prompt would write."""

import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.config.section import choice
from pipeline.llm.engine import Capabilities, Completion, Engine, Message, NumberPrompt, NumberScores, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.settings import Simulate
from stages.simulate import SIMULATORS
from stages.simulate.read_numbers import AllAtOnceSimulator
from stages.simulate.simulation import Simulator

Write = Callable[[Request], Completion | str | Exception]
Score = Callable[[NumberPrompt], NumberScores]


class DoubleEngine:
    """Answers by the functions that a test gives, and keeps what it was asked."""

    name = "double@1"
    context: int | None = None

    def __init__(self, write: Write | None = None, score: Score | None = None) -> None:
        self._write, self._score = write, score
        self.requests: list[Request] = []
        self.passages: list[NumberPrompt] = []
        self.score_calls = 0
        self.useless: list[Request] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)

    async def capabilities(self) -> Capabilities:
        return Capabilities(logprobs=20, reply_numbers=True, prompt_numbers=True)

    async def complete(self, request: Request) -> list[Completion]:
        assert self._write is not None
        self.requests.append(request)
        reply = self._write(request)
        if isinstance(reply, Exception):
            raise reply
        return [reply if isinstance(reply, Completion) else Completion(reply, 100, 10, True)]

    async def score(self, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
        assert self._score is not None
        self.score_calls += 1
        self.passages += passages
        return [self._score(passage) for passage in passages]

    def mark_useless(self, requests: Sequence[Request]) -> None:
        self.useless += requests

    async def aclose(self) -> None:
        pass


def simulator(name: str, engine: Engine, pack: int = 10) -> Simulator:
    """A simulator that asks an engine, with so many sequences in a request at most."""
    if name == "all_at_once":  # which a run has pack only behind an endpoint
        return AllAtOnceSimulator(Asker(engine), Prompt("simulate/all_at_once.v2"), pack)
    method = choice(SIMULATORS, name)
    made: Simulator = method.build(Simulate(pack=pack), Asker(engine), method.load_prompts(""))
    return made


def even_scores(slots: int) -> NumberScores:
    """All numbers equally likely."""
    return NumberScores(np.full((slots, 11), 1 / 11, dtype=np.float32), np.ones(slots, dtype=np.float32))


def certain(*numbers: int, coverage: float = 1.0) -> NumberScores:
    """One number for sure at each slot."""
    return NumberScores(
        np.eye(11, dtype=np.float32)[list(numbers)], np.full(len(numbers), coverage, dtype=np.float32), "", 7, 1
    )


def asked_texts(content: str) -> list[list[str]]:
    """Lines of each text in a user message of the written simulators, without their numbers."""
    parts = re.split(r"^Text \d+\n", content, flags=re.MULTILINE)[1:]
    return [[line.split(":", 1)[1] for line in part.splitlines()] for part in parts]


def written_reply(content: str, value: Callable[[str], int] = lambda token: 0) -> str:
    """A right reply to a user message of `generated` (rows) or `json`, by the value of each token as shown."""
    texts = asked_texts(content)
    if any("\t" in line for lines in texts for line in lines):
        rows = [line for lines in texts for line in lines]
        return rows_reply([[value(token) for token in row.split("\t")] for row in rows])
    return json_reply([[value(token) for token in lines] for lines in texts])


def rows_reply(rows: Sequence[Sequence[int]], first: int = 1) -> str:
    """Numbers as `generated` asks for them."""
    return "\n".join(f"{place}: {' '.join(map(str, row))}" for place, row in enumerate(rows, first))


def json_reply(texts: Sequence[Sequence[int]]) -> str:
    """Numbers as `json` asks for them."""
    listed = [[{"token": i, "value": v} for i, v in enumerate(values, 1) if v] for values in texts]
    return json.dumps({"texts": [{"text": i, "active": active} for i, active in enumerate(listed, 1)]})
