"""The texts that a judge is asked about, and the right answers: `detection` and `fuzzing` (Paulo et al. 2024).

Everything comes from the `report` split, which neither explained the unit nor chose among its explanations.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use, greedy_request
from stages.evidence import Exemplar
from stages.few_shot import marked_text, one_line, opening

HIGH = 0.5
"""The unit responds to tokens from this share of the text's highest activation on."""
LOW = 0.2
"""A token can be marked wrongly if its activation is below this share of the text's highest."""


@dataclass(frozen=True)
class Item:
    """A text and whether it fits a right explanation."""

    seq_id: int
    band: str
    text: str
    """On one line, as `marked_text` writes it."""
    fits: bool


@dataclass(frozen=True)
class JudgeMethod:
    """A question to a judge."""

    summary: str
    """One line for people."""
    prompt: str
    """Name of its prompt."""
    items: Callable[[Sequence[Exemplar], int, np.random.Generator], list[Item]]
    """The texts, from exemplars of the report split: so many of either kind at most; the generator draws what is drawn."""


def detection_items(exemplars: Sequence[Exemplar], most: int, rng: np.random.Generator) -> list[Item]:  # noqa: ARG001
    """Top sequences, and as many on which the unit stays low.

    The low ones are hard negatives where there are any, and random sequences whose maximum is not above the median of all
    random sequences' maxima: a unit that is never quite off is low below a quantile, not at zero.
    """
    top = [exemplar for exemplar in exemplars if exemplar.band == "top"][:most]
    known = {exemplar.seq_id for exemplar in exemplars if exemplar.band == "top"}
    hard = [exemplar for exemplar in exemplars if exemplar.band in ("similar", "neighbour")]
    drawn = [exemplar for exemplar in exemplars if exemplar.band == "random" and exemplar.seq_id not in known]
    peaks = [exemplar.highest for exemplar in drawn]
    median = float(np.median(peaks)) if peaks else 0.0
    low = [exemplar for exemplar, peak in zip(drawn, peaks, strict=True) if peak <= median]
    count = min(len(top), most)
    kinds = [(hard[: count // 2 or 1] + low)[:count], top[:count]]
    return [
        Item(exemplar.seq_id, exemplar.band, marked_text(exemplar.tokens, [False] * len(exemplar.tokens)), fits)
        for fits, kept in zip((False, True), kinds, strict=True)
        for exemplar in kept
    ]


def fuzzing_items(exemplars: Sequence[Exemplar], most: int, rng: np.random.Generator) -> list[Item]:
    """Top sequences with the tokens marked to which the unit responds, and others with as many wrong ones marked."""
    top = [exemplar for exemplar in exemplars if exemplar.band == "top"][: 2 * most]
    wrong = set(rng.permutation(len(top))[: len(top) // 2].tolist())
    items = []
    for place, exemplar in enumerate(top):
        marked = _marks(exemplar, right=place not in wrong, rng=rng)
        if marked is not None:
            text = marked_text(exemplar.tokens, marked)
            items.append(Item(exemplar.seq_id, exemplar.band, text, place not in wrong))
    return items


def _marks(exemplar: Exemplar, *, right: bool, rng: np.random.Generator) -> list[bool] | None:
    """Which tokens are marked; None where there are not as many wrong ones as right ones."""
    highest = exemplar.highest
    values = np.nan_to_num(exemplar.activations, nan=-np.inf)
    responds = values >= HIGH * highest
    if highest <= 0:
        return None
    if right:
        return list(responds.tolist())
    others = np.flatnonzero(np.isfinite(values) & (values < LOW * highest))
    if len(others) < responds.sum():
        return None
    marked = np.zeros(len(values), bool)
    marked[rng.permutation(others)[: int(responds.sum())]] = True
    return list(marked.tolist())


DETECTION = JudgeMethod("which texts fit", "judge/detection.v1", detection_items)
FUZZING = JudgeMethod("whether the marked tokens are the right ones", "judge/fuzzing.v1", fuzzing_items)


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
    messages = (*opening(prompt, _shots), Message("user", asked))
    most = max_tokens or 20 + 8 * len(texts)
    return greedy_request(messages, most, "\nThe neuron", attempt, logprobs=ALTERNATIVES)


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
