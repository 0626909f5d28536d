"""Scores passages: the probabilities of the numbers at places of a prompt, over an endpoint.

Two ways. `PassageReader` scores any passage: the token ids of the whole prompt, made as the in-process engine makes them,
go to /completions, which tells the alternatives at each place. `ReplyReader` scores passages whose only slot is the start
of the reply, by the alternatives of the first token of a chat reply.

Both are lower bounds: a number that is not among the alternatives counts 0, and the coverage is the mass that was found.
Where a number is written in several tokens ("1", "0"), `PassageReader` asks for the tokens behind a beginning such as "1"
only where the beginning has BRANCH_FROM or more of the mass that was found; below, all of it counts for the number that
the beginning itself is. With ten as the only such number, that lowers an expected value by less than 9 x BRANCH_FROM. `ReplyReader`
knows the second token only where the greedy reply goes on that way, so a "1" that is not the likeliest token counts whole
for 1: the expected value is then too low by up to 9 times its probability. Tokenizers with "10" in one token are exact.

Shapes: S slots, N nodes (beginnings of numbers), W wanted tokens.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.llm.endpoint.asks import Asks
from pipeline.llm.endpoint.bodies import CHAT, PLAIN, chat_body, plain_body
from pipeline.llm.endpoint.profile import Profile
from pipeline.llm.endpoint.prompt_reading import Row, keep_next, keep_prompt, next_body, prompt_body
from pipeline.llm.endpoint.reading import keep_replies
from pipeline.llm.endpoint.replies import Answer
from pipeline.llm.endpoint.together import together
from pipeline.llm.engine import NUMBERS, EngineError, Message, NumberPrompt, NumberScores, PromptTooLong, Request
from pipeline.llm.numbers import Probabilities, number_tokens
from pipeline.llm.prompt_encoder import Prompt, PromptEncoder

BRANCH_FROM = 0.02
"""Share of the coverage of a slot from which on the tokens behind a beginning of numbers are asked for."""
TRIES = 3
"""Replies drawn at most where one is a refusal or empty."""
PROMPTS_AT_ONCE = 64
"""Prompts in one request at most."""


class PassageReader:
    """Scores any passage by the log-probabilities of a prompt's tokens."""

    def __init__(self, sender: Asks, encoder: PromptEncoder, profile: Profile, context: int | None) -> None:
        self._sender, self._encoder, self._reading, self._context = sender, encoder, profile.reading, context
        self._numbers = number_tokens(encoder)
        self._conversation = lru_cache(maxsize=256)(self._encode)

    async def score(self, passage: NumberPrompt) -> NumberScores:
        """One request, and where beginnings of numbers are likely, further ones.

        Raises:
            PromptTooLong, EngineError: as the endpoint answers.
        """
        ids, places = self._tokens(passage)
        longest = max((node.depth + 2 for node in self._numbers.nodes), default=1)
        if self._context is not None and (needed := max(len(ids), max(places) + longest)) > self._context:
            raise PromptTooLong(f"{needed} tokens do not fit the model's context of {self._context}")
        spent = _Spent()
        shape = (len(places), 1 + len(self._numbers.nodes), len(self._numbers.wanted))
        logs = np.full(shape, -np.inf)
        logs[:, 0] = await self._at_slots(ids, places, spent)
        for depth in range(longest - 1):
            await self._read_branches(ids, places, depth, logs, spent)
        return number_scores(self._numbers.numbers(logs), spent.prompt_tokens, spent.completion_tokens)

    def _tokens(self, passage: NumberPrompt) -> tuple[list[int], list[int]]:
        """The token ids of the whole prompt, and for each slot the index of the token that follows it."""
        ids = list(self._conversation(passage.messages).ids)
        starts = [len(ids)]
        for piece in self._encoder.reply(passage.reply) if passage.reply else ():
            ids += piece
            starts.append(len(ids))
        return ids, [starts[slot] for slot in passage.slots]

    def _encode(self, messages: tuple[Message, ...]) -> Prompt:
        return self._encoder.conversation(messages)

    async def _at_slots(self, ids: list[int], places: list[int], spent: "_Spent") -> Probabilities:
        """(S, W) log-probabilities at the slots."""
        if places == [len(ids)]:
            return await self._behind([ids], spent)
        wanted = self._numbers.wanted
        if places[-1] == len(ids):
            ids = [*ids, wanted[0]]  # a token must stand where alternatives are to be listed
        keep = partial(keep_prompt, ids=ids, places=places, wanted=wanted, reading=self._reading)
        answer = await self._sender.ask(
            PLAIN,
            prompt_body(ids, self._reading),
            _number(places, wanted),
            tokens_at_most=self._reading.max_tokens,
            keep=keep,
        )
        spent.add(answer)
        return _array(answer.body["rows"])

    async def _read_branches(
        self, ids: list[int], places: list[int], depth: int, logs: Probabilities, spent: "_Spent"
    ) -> None:
        """Fill in the log-probabilities behind the likely beginnings of `depth` + 1 tokens."""
        branches = [
            (slot, number, path)
            for number, node in enumerate(self._numbers.nodes)
            if node.depth == depth
            for slot in range(len(places))
            if (path := self._likely_path(logs[slot], number)) is not None
        ]
        if not branches:
            return
        prompts = [[*ids[: places[slot]], *path] for slot, _, path in branches]
        rows = await self._behind(prompts, spent)
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

    async def _behind(self, prompts: list[list[int]], spent: "_Spent") -> Probabilities:
        """(prompts, W) log-probabilities of the token behind each prompt."""
        wanted = self._numbers.wanted
        parts = [prompts[start : start + PROMPTS_AT_ONCE] for start in range(0, len(prompts), PROMPTS_AT_ONCE)]
        answers = await together(
            self._sender.ask(
                PLAIN,
                next_body(part, self._reading),
                _number(wanted),
                tokens_at_most=len(part),
                keep=partial(keep_next, prompts=len(part), wanted=wanted, reading=self._reading),
            )
            for part in parts
        )
        for answer in answers:
            spent.add(answer)
        return _array([row for answer in answers for row in answer.body["rows"]])


class ReplyReader:
    """Scores passages whose only slot is the start of the reply, by the first token of a reply."""

    def __init__(self, sender: Asks, profile: Profile) -> None:
        self._sender, self._profile = sender, profile

    async def score(self, passage: NumberPrompt) -> NumberScores:
        """One request, and up to TRIES where the reply is a refusal or empty.

        Raises:
            PromptTooLong, EngineError: as the endpoint answers, or only such replies.
        """
        spent = _Spent()
        for attempt in range(TRIES):
            answer = await self._ask(passage, attempt)
            spent.add(answer)
            reply = answer.body["replies"][0]
            if reply["tokens"] and not reply["refusal"]:
                logs = reply_numbers(reply["tokens"])
                return number_scores(logs[None], spent.prompt_tokens, spent.completion_tokens)
        raise EngineError(
            f"refused: {reply['refusal'][:200]}" if reply["refusal"] else "an empty reply instead of a number"
        )

    async def _ask(self, passage: NumberPrompt, attempt: int) -> Answer:
        profile = self._profile
        request = Request(passage.messages, max_tokens=2, temperature=0.0, logprobs=profile.logprobs)
        path, body = (CHAT, chat_body(request, profile)) if profile.chat else (PLAIN, plain_body(request, profile))
        keep = partial(keep_replies, wanted=1, logprobs=True)
        return await self._sender.ask(path, body, attempt, tokens_at_most=2, keep=keep)


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


def number_scores(logs: Probabilities, prompt_tokens: int, completion_tokens: int) -> NumberScores:
    """Normalised probabilities and coverage from (S, 11) log-probabilities.

    A slot where no number was found has coverage 0 and NaN as its probabilities, so that nobody takes them for a value.
    """
    with np.errstate(under="ignore", invalid="ignore"):
        total = np.logaddexp.reduce(logs, axis=1)
        probabilities = np.exp(logs - total[:, None])
        coverage = np.minimum(np.exp(total), 1.0)
    return NumberScores(
        probabilities.astype(np.float32),
        coverage.astype(np.float32),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


class _Spent:
    """Tokens of the requests of one passage."""

    def __init__(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0

    def add(self, answer: Answer) -> None:
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens


def _array(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    return np.array([[-np.inf if value is None else value for value in row] for row in rows], dtype=np.float64)


def _number(*kept: Sequence[int]) -> int:
    """A number for what is kept of a reply, so that the cache holds one for each choice of places and tokens."""
    digest = hashlib.sha256(json.dumps([list(part) for part in kept]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
