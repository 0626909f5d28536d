"""Scores prompts over an endpoint: the probabilities of the numbers at their slots.

`PromptScorer` scores any prompt: the token ids of the whole prompt, made as the in-process engine makes them, go to
/completions, which tells the alternatives at each place. Servers differ:

- vLLM takes the field `prompt_logprobs` and names each token by its id. Its `return_tokens_as_token_ids` does the same for
  the tokens of the reply.
- SGLang and the hosted services that kept OpenAI's older interface take `echo` with `logprobs` and name tokens by their texts.
- llama.cpp, Ollama and OpenAI give none. There `ReplyScorer` scores prompts whose only slot is the start of the reply, by the
  alternatives of the first token of a chat reply.

Of an answer only the wanted tokens at the wanted places are kept, as rows of log-probabilities with None where a token is not
among the alternatives. An answer of another form raises one of `faults.UNLIKE`.

Both scorers give lower bounds. A number that is not among the alternatives counts 0, and the coverage is the mass that was found.
Where a number is written in several tokens ("1", "0"), `PromptScorer` asks for the tokens behind a beginning such as "1"
only where the beginning has BRANCH_FROM or more of the mass that was found. Below, all of it counts for the number that the
beginning itself is; with ten as the only such number, that lowers an expected value by less than 9 x BRANCH_FROM.
`ReplyScorer` knows the second token only where the greedy reply goes on that way. So a "1" that is not the likeliest token
counts whole for 1, and the expected value is too low by up to 9 times its probability. Tokenizers with "10" in one token are
exact.

Shapes: S slots, N beginnings of numbers, W wanted tokens.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from pipeline.execution.concurrency import gather_all
from pipeline.llm.endpoint.client import PLAIN
from pipeline.llm.endpoint.completions import (
    EndpointCapabilities,
    PromptLogprobs,
    body_of,
    checked,
    in_order,
    keep_replies,
)
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask, Sender
from pipeline.llm.engine import NUMBERS, EngineError, NumberPrompt, NumberScores, Request, refuse_too_long
from pipeline.llm.prompt_encoder import Probabilities, PromptEncoder, normalised, number_tokens

BRANCH_FROM = 0.02
"""Share of the coverage of a slot from which on the tokens behind a beginning of numbers are asked for."""
TRIES = 3
"""Replies drawn at most where one is a refusal or empty."""
PROMPTS_AT_ONCE = 64
"""Prompts in one request at most."""
ID_PREFIX = "token_id:"

Json = Mapping[str, Any]
Row = list[float | None]
Find = Callable[[int], Any]


class PromptScorer:
    """Scores any prompt by the log-probabilities of its tokens."""

    def __init__(self, sender: Sender, encoder: PromptEncoder, can: EndpointCapabilities, context: int | None) -> None:
        self._sender, self._encoder, self._reading, self._context = sender, encoder, can.reading, context
        self._numbers = number_tokens(encoder)
        self._conversation = lru_cache(maxsize=256)(encoder.conversation)

    async def score(self, prompt: NumberPrompt) -> NumberScores:
        """One request, and where beginnings of numbers are likely, further ones.

        Raises:
            PromptTooLong, EngineError: as the endpoint answers.
        """
        ids, places = self._tokens(prompt)
        numbers = self._numbers
        longest = 1 + max(map(len, numbers.beginnings), default=0)
        refuse_too_long(max(len(ids), max(places) + longest), self._context)
        answers: list[Answer] = []
        logs = np.full((len(places), 1 + len(numbers.beginnings), len(numbers.wanted)), -np.inf)
        logs[:, 0] = await self._at_slots(ids, places, answers)
        for length in range(1, longest):
            likely = [
                (slot, beginning)
                for beginning in numbers.beginnings
                if len(beginning) == length
                for slot in self._where_likely(beginning, logs)
            ]
            prompts = [[*ids[: places[slot]], *beginning] for slot, beginning in likely]
            for (slot, beginning), row in zip(likely, await self._behind(prompts, answers), strict=True):
                logs[slot, numbers.after(beginning)] = row
        return _scores(numbers.numbers(logs), answers)

    def _tokens(self, prompt: NumberPrompt) -> tuple[list[int], list[int]]:
        """The token ids of the whole prompt, and for each slot the index of the token that follows it."""
        ids = list(self._conversation(prompt.messages).ids)
        starts = [len(ids)]
        for piece in self._encoder.reply(prompt.reply) if prompt.reply else ():
            ids += piece
            starts.append(len(ids))
        return ids, [starts[slot] for slot in prompt.slots]

    async def _at_slots(self, ids: list[int], places: list[int], answers: list[Answer]) -> Probabilities:
        """(S, W) log-probabilities at the slots."""
        if places == [len(ids)]:
            return await self._behind([ids], answers)
        wanted = self._numbers.wanted
        if places[-1] == len(ids):
            ids = [*ids, wanted[0]]  # a token must stand where alternatives are to be listed
        keep = partial(keep_prompt, ids=ids, places=places, wanted=wanted, reading=self._reading)
        ask = Ask(PLAIN, prompt_body(ids, self._reading), keep, _number(places, wanted))
        answers.append(await self._sender.ask(ask))
        return _array(answers[-1].body["rows"])

    def _where_likely(self, beginning: tuple[int, ...], logs: Probabilities) -> list[int]:
        """The slots where a beginning has BRANCH_FROM or more of the mass that was found, from (S, 1 + N, W)."""
        numbers = self._numbers
        first = sorted({numbers.wanted.index(tokens[0]) for tokens in numbers.ids})
        with np.errstate(invalid="ignore"):
            share = numbers.written(beginning, logs) - np.logaddexp.reduce(logs[:, 0, first], axis=1)
        return np.flatnonzero(share >= np.log(BRANCH_FROM)).tolist()

    async def _behind(self, prompts: list[list[int]], answers: list[Answer]) -> Probabilities:
        """(prompts, W) log-probabilities of the token behind each prompt."""
        wanted, reading = self._numbers.wanted, self._reading
        parts = [prompts[start : start + PROMPTS_AT_ONCE] for start in range(0, len(prompts), PROMPTS_AT_ONCE)]
        keeps = [partial(keep_next, prompts=len(part), wanted=wanted, reading=reading) for part in parts]
        asks = [
            Ask(PLAIN, next_body(part, reading), keep, _number(wanted)) for part, keep in zip(parts, keeps, strict=True)
        ]
        found = await gather_all(map(self._sender.ask, asks))
        answers += found
        return _array([row for answer in found for row in answer.body["rows"]])


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
        answers: list[Answer] = []
        for attempt in range(TRIES):
            answers.append(await self._sender.ask(Ask(path, body, keep, attempt)))
            reply = answers[-1].body["replies"][0]
            if reply["tokens"] and not reply["refusal"]:
                return _scores(reply_numbers(reply["tokens"])[None], answers)
        raise EngineError(
            f"refused: {reply['refusal'][:200]}" if reply["refusal"] else "an empty reply instead of a number"
        )


def _scores(logs: Probabilities, answers: Sequence[Answer]) -> NumberScores:
    """Scores from (S, 11) log-probabilities; where a slot has no number, the probabilities are NaN and coverage 0."""
    probabilities, coverage = normalised(logs)
    read, written = (
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.completion_tokens for answer in answers),
    )
    return NumberScores(probabilities, np.minimum(coverage, 1.0), "", read, written)


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


def _array(rows: Sequence[Row]) -> Probabilities:
    return np.array([[-np.inf if value is None else value for value in row] for row in rows], dtype=np.float64)


def _number(*kept: Sequence[int]) -> int:
    """A number for what is kept of a reply, so that the cache holds one for each choice of places and tokens."""
    digest = hashlib.sha256(json.dumps([list(part) for part in kept]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def prompt_body(ids: Sequence[int], reading: PromptLogprobs) -> dict[str, Any]:
    """Asks for the alternatives at every token of one prompt; the one token of the reply is left aside."""
    body: dict[str, Any] = {"prompt": list(ids), "max_tokens": 1, "temperature": 0}
    if reading.way == "echo":
        return body | {"echo": True, "logprobs": reading.alternatives}
    return body | {"prompt_logprobs": reading.alternatives}


def next_body(prompts: Sequence[Sequence[int]], reading: PromptLogprobs) -> dict[str, Any]:
    """Asks for the alternatives in the place of the one token behind each prompt, which prefix caches make cheap."""
    body: dict[str, Any] = {"prompt": [list(ids) for ids in prompts], "max_tokens": 1, "temperature": 0}
    body["logprobs"] = reading.alternatives
    return body | ({"return_tokens_as_token_ids": True} if reading.token_ids else {})


def keep_prompt(
    reply: Json, ids: Sequence[int], places: Sequence[int], wanted: Sequence[int], reading: PromptLogprobs
) -> dict[str, Any]:
    """Rows for the tokens at `places`, each given all tokens before it."""
    choice = in_order(reply)[0]
    find = _echoed if reading.way == "echo" else _listed
    return {"rows": [_row(find(choice, ids, place, reading), wanted) for place in places]}


def keep_next(reply: Json, prompts: int, wanted: Sequence[int], reading: PromptLogprobs) -> dict[str, Any]:
    """One row for each prompt."""
    choices = in_order(reply)
    if [int(choice["index"]) for choice in choices] != list(range(prompts)):
        raise ValueError(f"{len(choices)} replies to {prompts} prompts")
    return {"rows": [_row(_first(choice, reading), wanted) for choice in choices]}


def _row(find: Find, wanted: Sequence[int]) -> Row:
    values = [find(token) for token in wanted]
    return [None if value is None or value == float("-inf") else checked(value) for value in values]


def _listed(choice: Json, ids: Sequence[int], place: int, _: PromptLogprobs) -> Find:
    """The alternatives at a place by `prompt_logprobs`: one entry by token id, the prompt's own token among them."""
    listed = choice["prompt_logprobs"]
    if len(listed) != len(ids):
        raise ValueError(f"log-probabilities of {len(listed)} tokens for a prompt of {len(ids)}")
    entries = listed[place]
    checked(entries[str(ids[place])]["logprob"])
    return lambda token: entries[str(token)]["logprob"] if str(token) in entries else None


def _echoed(choice: Json, ids: Sequence[int], place: int, reading: PromptLogprobs) -> Find:
    """The alternatives at a place by `echo`: texts, the prompt's own token by itself."""
    logprobs = choice["logprobs"]
    if len(logprobs["tokens"]) < len(ids):
        raise ValueError(f"log-probabilities of {len(logprobs['tokens'])} tokens for a prompt of {len(ids)}")
    own, entries, names = logprobs["token_logprobs"][place], logprobs["top_logprobs"][place], dict(reading.spelling)
    checked(own)
    return lambda token: own if token == ids[place] else entries.get(names[token])


def _first(choice: Json, reading: PromptLogprobs) -> Find:
    """The alternatives of the first token of a reply, by id where the server names ids, else by text."""
    entries, names = choice["logprobs"]["top_logprobs"][0], dict(reading.spelling)
    if any(key.startswith(ID_PREFIX) for key in entries):
        return lambda token: entries.get(f"{ID_PREFIX}{token}")
    return lambda token: entries.get(names[token])
