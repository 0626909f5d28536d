"""What a judge is asked about some texts, and its answers."""

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from pipeline.llm.engine import Completion, Engine, EngineError, Message, Refused, Request
from pipeline.prompts import FOLDER, render

TRIES = 3
"""Requests at most for some texts, while the reply cannot be used."""
ALTERNATIVES = 20
"""Asked for at each token of a reply."""
RETRY_TEMPERATURE = 0.7
_ANSWER = re.compile(r"^[ \t]*(\d{1,4})[ \t]*[:.)][ \t]*(yes|no)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What a judge says of one text."""

    says: bool | None
    """None where `error` says why there is no answer."""
    probability: float | None
    """P(yes) / (P(yes) + P(no)) where the answer stands; None without log-probabilities."""
    error: str = ""
    prompt_tokens: int = 0
    """Of the whole request, carried by its first text."""
    completion_tokens: int = 0


async def answers(engine: Engine, prompt_id: str, explanation: str, texts: Sequence[str]) -> list[Answer]:
    """One answer for each text, in order, from one request; from another where the reply lacks one of them."""
    fault, prompt_tokens, completion_tokens = "", 0, 0
    for attempt in range(TRIES):
        try:
            reply = (await engine.complete(request(prompt_id, explanation, texts, attempt)))[0]
        except Refused as error:
            fault = str(error)
            prompt_tokens, completion_tokens = (
                prompt_tokens + error.prompt_tokens,
                completion_tokens + error.completion_tokens,
            )
            continue
        except EngineError as error:
            fault = str(error)
            break
        prompt_tokens += reply.prompt_tokens
        completion_tokens += reply.completion_tokens
        found, fault = read_reply(reply, len(texts))
        if not fault:
            first = Answer(found[0].says, found[0].probability, "", prompt_tokens, completion_tokens)
            return [first, *found[1:]]
    failed = [Answer(None, None, fault) for _ in texts]
    return [Answer(None, None, fault, prompt_tokens, completion_tokens), *failed[1:]]


def request(prompt_id: str, explanation: str, texts: Sequence[str], attempt: int = 0) -> Request:
    """The question about some texts; the few-shot questions before it are the same for all."""
    asked = render(prompt_id, part="question", explanation=" ".join(explanation.split()), texts=texts).strip("\n")
    return Request(
        messages=(*_few_shot(prompt_id), Message("user", asked)),
        max_tokens=20 + 8 * len(texts),
        temperature=RETRY_TEMPERATURE if attempt else 0.0,
        stop=("\nThe neuron",),
        seed=attempt,
        logprobs=ALTERNATIVES,
        attempt=attempt,
    )


def read_reply(reply: Completion, count: int) -> tuple[list[Answer], str]:
    """The answers of a reply to `count` texts, and what is wrong with it, if anything is."""
    found = list(_ANSWER.finditer(reply.text))
    numbers = [int(match[1]) for match in found]
    if numbers != list(range(1, count + 1)):
        shown = ", ".join(map(str, numbers)) or "none"
        return [], f"the reply has answers for the texts {shown}, not for 1 to {count}: {reply.text[:80]!r}"
    return [Answer(match[2].lower() == "yes", _probability(reply, match.start(2))) for match in found], ""


def _probability(reply: Completion, start: int) -> float | None:
    """P(yes) among yes and no, from the alternatives to the token that holds the answer's first letter."""
    ends = list(accumulate(len(token.text) for token in reply.tokens))
    place = next((number for number, end in enumerate(ends) if end > start), None)
    if place is None or "".join(token.text for token in reply.tokens) != reply.text:
        return None
    mass = {True: 0.0, False: 0.0}
    for text, log_probability in reply.tokens[place].alternatives:
        word = text.strip().lower()
        if word and ("yes".startswith(word) or "no".startswith(word)):
            mass["yes".startswith(word)] += math.exp(log_probability)
    total = mass[True] + mass[False]
    return mass[True] / total if total > 0 else None


@cache
def _few_shot(prompt_id: str) -> tuple[Message, ...]:
    messages = [Message("system", render(prompt_id, part="system").strip("\n"))]
    name = render(prompt_id, part="few_shot").strip()
    for shown in tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["question"]:
        asked = render(prompt_id, part="question", explanation=shown["explanation"], texts=shown["texts"]).strip("\n")
        reply = "".join(f"\n{number}: {answer}" for number, answer in enumerate(shown["answers"], 1))
        messages += [Message("user", asked), Message("assistant", reply)]
    return tuple(messages)
