"""What a judge is asked about some texts, and its answers."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import Prompt
from stages.asking import RETRY_TEMPERATURE, Asker, Reply, Use
from stages.few_shot import one_line, opening

ALTERNATIVES = 20
"""Asked for at each token of a reply."""
_ANSWER = re.compile(r"^[ \t]*(\d{1,4})[ \t]*[:.)][ \t]*(yes|no)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What a judge says of one text."""

    says: bool | None
    """None where `error` says why there is no answer."""
    probability: float | None = None
    """P(yes) / (P(yes) + P(no)) where the answer stands; None without log-probabilities."""
    error: str = ""
    prompt_tokens: int = 0
    """Of the whole request, carried by its first text."""
    completion_tokens: int = 0


async def answers(
    asker: Asker, prompt: Prompt, explanation: str, texts: Sequence[str], max_tokens: int | None = None
) -> list[Answer]:
    """One answer for each text, in order, from one request; from another where the reply lacks one of them.

    Args:
        max_tokens: of a reply; as many as the answers need unless given.
    """
    found: list[Answer] = []
    fault = ""
    prompt_tokens = completion_tokens = 0

    def take(reply: Reply) -> Use:
        nonlocal found, fault, prompt_tokens, completion_tokens
        prompt_tokens += reply.prompt_tokens
        completion_tokens += reply.completion_tokens
        found, fault = read_reply(reply.completions[0], len(texts)) if reply.completions else ([], reply.refusal)
        return Use.NOTHING if fault else Use.ALL

    error = await asker.ask(lambda attempt: request(prompt, explanation, texts, max_tokens, attempt), take)
    first, *rest = found or [Answer(None, error=str(error or fault))] * len(texts)
    return [replace(first, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens), *rest]


def request(
    prompt: Prompt, explanation: str, texts: Sequence[str], max_tokens: int | None = None, attempt: int = 0
) -> Request:
    """The question about some texts; the few-shot questions before it are the same for all."""
    asked = prompt.part("question", explanation=one_line(explanation), texts=texts)
    return Request(
        messages=(*opening(prompt, _shots), Message("user", asked)),
        max_tokens=max_tokens or 20 + 8 * len(texts),
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


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for shown in prompt.examples()["question"]:
        asked = prompt.part("question", explanation=shown["explanation"], texts=shown["texts"])
        yield asked, "".join(f"\n{number}: {answer}" for number, answer in enumerate(shown["answers"], 1))
