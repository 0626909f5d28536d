"""Draws of n-grams, and the different explanations that they lead to."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stages.explain.base import Candidate, ExplanationError
from stages.settings import Sasc

if TYPE_CHECKING:
    from stages.sasc.summarise import Summariser

DRAWS = 4
"""Draws for each candidate at most; one that leads to an explanation that is there already is drawn anew."""
FAILING = 3
"""Draws of which nothing can be said, at most; after so many, the explanations that there are have to do."""


@dataclass(frozen=True)
class Theme:
    """An explanation and the n-grams that it was drawn from."""

    candidate: Candidate
    drawn: list[str]


def draws(ngrams: Sequence[str], sasc: Sasc, rng: np.random.Generator) -> Iterator[list[str]]:
    """Random sets of sasc.shown of the first sasc.top n-grams, in the order of their rank, without an end.

    Singh et al. 2023, section 3: 30 of the top 50. Where there are fewer n-grams than that, all of them.
    """
    top = list(ngrams[: sasc.top])
    while True:
        chosen = np.sort(rng.permutation(len(top))[: sasc.shown])
        yield [top[place] for place in chosen]


async def themes(summariser: "Summariser", kept: Sequence[tuple[str, float]], sasc: Sasc, seed: int) -> list[Theme]:
    """Up to sasc.candidates different explanations, each from another draw, in the order in which they were found.

    The tokens that a repeated explanation took are added to the first one of it, those of failing draws to the first of all.

    Args:
        kept: n-grams with their responses, by falling response.

    Raises:
        ExplanationError: nothing can be said of any draw.
    """
    found: dict[str, Theme] = {}
    failures: list[ExplanationError] = []
    drawn = draws([text for text, _ in kept], sasc, np.random.default_rng(seed))
    for number, shown in enumerate(itertools.islice(drawn, DRAWS * sasc.candidates)):
        try:
            candidate = await summariser.explain(shown, kept, seed + number)
        except ExplanationError as error:
            failures.append(error)
        else:
            same = normalised(candidate.text)
            found[same] = _charged(found[same], candidate) if same in found else Theme(candidate, shown)
        if len(found) == sasc.candidates or len(failures) == FAILING:
            break
    return _with_failures(list(found.values()), failures)


def normalised(text: str) -> str:
    """What two texts have in common that say the same: letters and digits without capitals."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    return " ".join(words) or text.strip()


def _with_failures(found: list[Theme], failures: Sequence[ExplanationError]) -> list[Theme]:
    """The first theme is charged with what the failing draws took.

    Raises:
        ExplanationError: there is no theme; it carries what all of them took.
    """
    if found:
        return [_charged(found[0], *failures), *found[1:]]
    prompt_tokens = sum(error.prompt_tokens for error in failures)
    completion_tokens = sum(error.completion_tokens for error in failures)
    raise ExplanationError(str(failures[-1]), prompt_tokens, completion_tokens) from failures[-1]


def _charged(theme: Theme, *spent: Candidate | ExplanationError) -> Theme:
    """The theme with the tokens of others added to its own."""
    candidate = replace(
        theme.candidate,
        prompt_tokens=sum(one.prompt_tokens for one in (theme.candidate, *spent)),
        completion_tokens=sum(one.completion_tokens for one in (theme.candidate, *spent)),
    )
    return replace(theme, candidate=candidate)
