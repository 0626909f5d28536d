"""Scores prompts over an endpoint: the probabilities of the numbers at their slots.

`PromptScorer` scores any prompt: the token ids of the whole prompt, made as the in-process engine makes them, go to
/completions, which tells the alternatives at each place. `ReplyScorer` scores prompts whose only slot is the start of the
reply, by the alternatives of the first token of a chat reply.

Both give lower bounds. A number that is not among the alternatives counts 0, and the coverage is the mass that was found.
Where a number is written in several tokens ("1", "0"), `PromptScorer` asks for the tokens behind a beginning such as "1"
only where the beginning has BRANCH_FROM or more of the mass that was found. Below, all of it counts for the number that the
beginning itself is; with ten as the only such number, that lowers an expected value by less than 9 x BRANCH_FROM.
`ReplyScorer` knows the second token only where the greedy reply goes on that way. So a "1" that is not the likeliest token
counts whole for 1, and the expected value is too low by up to 9 times its probability. Tokenizers with "10" in one token are
exact.

Shapes: S slots, N nodes (beginnings of numbers), W wanted tokens.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.execution.concurrency import gather_all
from pipeline.llm.endpoint.client import PLAIN
from pipeline.llm.endpoint.completions import EndpointCapabilities, body_of, keep_replies
from pipeline.llm.endpoint.prompt_logprobs import Row, keep_next, keep_prompt, next_body, prompt_body
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask, Sender
from pipeline.llm.engine import NUMBERS, EngineError, Message, NumberPrompt, NumberScores, PromptTooLong, Request
from pipeline.llm.numbers import Probabilities, normalised, number_tokens
from pipeline.llm.prompt_encoder import Prompt, PromptEncoder

BRANCH_FROM = 0.02
"""Share of the coverage of a slot from which on the tokens behind a beginning of numbers are asked for."""
TRIES = 3
"""Replies drawn at most where one is a refusal or empty."""
PROMPTS_AT_ONCE = 64
"""Prompts in one request at most."""


class _Spent:
    """Tokens of the requests for one prompt."""

    def __init__(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0

    def add(self, answer: Answer) -> None:
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    def scores(self, logs: Probabilities) -> NumberScores:
        """Scores from (S, 11) log-probabilities; where a slot has no number, the probabilities are NaN and coverage 0."""
        probabilities, coverage = normalised(logs)
        coverage = np.minimum(coverage, 1.0)
        return NumberScores(probabilities, coverage, "", self.prompt_tokens, self.completion_tokens)


class PromptScorer:
    """Scores any prompt by the log-probabilities of its tokens."""

    def __init__(self, sender: Sender, encoder: PromptEncoder, can: EndpointCapabilities, context: int | None) -> None:
        self._sender, self._encoder, self._reading, self._context = sender, encoder, can.reading, context
        self._numbers = number_tokens(encoder)
        self._conversation = lru_cache(maxsize=256)(self._encode)

    async def score(self, prompt: NumberPrompt) -> NumberScores:
        """One request, and where beginnings of numbers are likely, further ones.

        Raises:
            PromptTooLong, EngineError: as the endpoint answers.
        """
        ids, places = self._tokens(prompt)
        longest = max((node.depth + 2 for node in self._numbers.nodes), default=1)
        if self._context is not None and (needed := max(len(ids), max(places) + longest)) > self._context:
            raise PromptTooLong(f"{needed} tokens do not fit the model's context of {self._context}")
        spent = _Spent()
        logs = np.full((len(places), 1 + len(self._numbers.nodes), len(self._numbers.wanted)), -np.inf)
        logs[:, 0] = await self._at_slots(ids, places, spent)
        for depth in range(longest - 1):
            await self._read_branches(ids, places, depth, logs, spent)
        return spent.scores(self._numbers.numbers(logs))

    def _tokens(self, prompt: NumberPrompt) -> tuple[list[int], list[int]]:
        """The token ids of the whole prompt, and for each slot the index of the token that follows it."""
        ids = list(self._conversation(prompt.messages).ids)
        starts = [len(ids)]
        for piece in self._encoder.reply(prompt.reply) if prompt.reply else ():
            ids += piece
            starts.append(len(ids))
        return ids, [starts[slot] for slot in prompt.slots]

    def _encode(self, messages: tuple[Message, ...]) -> Prompt:
        return self._encoder.conversation(messages)

    async def _at_slots(self, ids: list[int], places: list[int], spent: _Spent) -> Probabilities:
        """(S, W) log-probabilities at the slots."""
        if places == [len(ids)]:
            return await self._behind([ids], spent)
        wanted = self._numbers.wanted
        if places[-1] == len(ids):
            ids = [*ids, wanted[0]]  # a token must stand where alternatives are to be listed
        keep = partial(keep_prompt, ids=ids, places=places, wanted=wanted, reading=self._reading)
        body, kept = prompt_body(ids, self._reading), _number(places, wanted)
        answer = await self._sender.ask(Ask(PLAIN, body, keep=keep, attempt=kept))
        spent.add(answer)
        return _array(answer.body["rows"])

    async def _read_branches(
        self, ids: list[int], places: list[int], depth: int, logs: Probabilities, spent: _Spent
    ) -> None:
        """Fill in the log-probabilities behind the likely beginnings of `depth` + 1 tokens."""
        branches = [
            (slot, number, path)
            for number, node in enumerate(self._numbers.nodes)
            if node.depth == depth
            for slot in range(len(places))
            if (path := self._likely_path(logs[slot], number)) is not None
        ]
        if branches:
            rows = await self._behind([[*ids[: places[slot]], *path] for slot, _, path in branches], spent)
            for (slot, number, _), row in zip(branches, rows, strict=True):
                logs[slot, 1 + number] = row

    def _likely_path(self, logs: Probabilities, number: int) -> list[int] | None:
        """The tokens of a beginning, from its (1 + N, W) log-probabilities at a slot; None where it is unlikely."""
        column = {token: place for place, token in enumerate(self._numbers.wanted)}
        path: list[int] = []
        total = 0.0
        while number >= 0:
            node = self._numbers.nodes[number]
            path.insert(0, node.token)
            total += float(logs[1 + node.parent, column[node.token]])
            number = node.parent
        first = sorted({column[tokens[0]] for tokens in self._numbers.ids})
        found = total > -np.inf and total - np.logaddexp.reduce(logs[0, first]) >= np.log(BRANCH_FROM)
        return path if found else None

    async def _behind(self, prompts: list[list[int]], spent: _Spent) -> Probabilities:
        """(prompts, W) log-probabilities of the token behind each prompt."""
        wanted = self._numbers.wanted
        parts = [prompts[start : start + PROMPTS_AT_ONCE] for start in range(0, len(prompts), PROMPTS_AT_ONCE)]
        answers = await gather_all(
            self._sender.ask(
                Ask(
                    PLAIN,
                    next_body(part, self._reading),
                    keep=partial(keep_next, prompts=len(part), wanted=wanted, reading=self._reading),
                    attempt=_number(wanted),
                )
            )
            for part in parts
        )
        for answer in answers:
            spent.add(answer)
        return _array([row for answer in answers for row in answer.body["rows"]])


class ReplyScorer:
    """Scores prompts whose only slot is the start of the reply, by the first token of a reply."""

    def __init__(self, sender: Sender, can: EndpointCapabilities) -> None:
        self._sender, self._can = sender, can

    async def score(self, prompt: NumberPrompt) -> NumberScores:
        """One request, and up to TRIES where the reply is a refusal or empty.

        Raises:
            PromptTooLong, EngineError: as the endpoint answers, or only such replies.
        """
        request = Request(prompt.messages, max_tokens=2, temperature=0.0, logprobs=self._can.logprobs)
        path, body = body_of(request, self._can)
        keep = partial(keep_replies, wanted=1, logprobs=True)
        spent = _Spent()
        for attempt in range(TRIES):
            answer = await self._sender.ask(Ask(path, body, keep=keep, attempt=attempt))
            spent.add(answer)
            reply = answer.body["replies"][0]
            if reply["tokens"] and not reply["refusal"]:
                return spent.scores(reply_numbers(reply["tokens"])[None])
        raise EngineError(
            f"refused: {reply['refusal'][:200]}" if reply["refusal"] else "an empty reply instead of a number"
        )


def reply_numbers(tokens: Sequence[Any]) -> Probabilities:
    """(11,) log-probabilities of the numbers, from the first tokens of a reply with their alternatives.

    White space around a number in one token is left aside: " 7" and "7" count together.
    """
    texts = [str(number) for number in NUMBERS]
    found = np.zeros(len(texts))
    for text, value in tokens[0][1]:
        if text.strip() in texts:
            found[texts.index(text.strip())] += np.exp(value)
    if tokens[0][0].strip() == "1" and len(tokens) > 1:
        ten = found[1] * sum(np.exp(value) for text, value in tokens[1][1] if text == "0")
        found[1] -= ten
        found[10] += ten
    with np.errstate(divide="ignore"):
        logs: Probabilities = np.log(found)
    return logs


def _array(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    return np.array([[-np.inf if value is None else value for value in row] for row in rows], dtype=np.float64)


def _number(*kept: Sequence[int]) -> int:
    """A number for what is kept of a reply, so that the cache holds one for each choice of places and tokens."""
    digest = hashlib.sha256(json.dumps([list(part) for part in kept]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
