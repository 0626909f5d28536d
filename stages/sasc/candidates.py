"""Draws of n-grams, and the different explanations that they lead to."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import Sasc
from stages.explain.base import Candidate

if TYPE_CHECKING:
    from stages.sasc.summarise import Summariser

DRAWS = 4
"""Draws for each candidate at most; one that leads to an explanation that is there already is drawn anew."""


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

    The tokens that a repeated explanation took are added to the first one of it.

    Args:
        kept: n-grams with their responses, by falling response.

    Raises:
        ExplanationError: nothing can be said of a draw.
    """
    found: dict[str, Theme] = {}
    drawn = draws([text for text, _ in kept], sasc, np.random.default_rng(seed))
    for number, shown in enumerate(itertools.islice(drawn, DRAWS * sasc.candidates)):
        candidate = await summariser.explain(shown, kept, seed + number)
        same = normalised(candidate.text)
        found[same] = _joined(found[same], candidate) if same in found else Theme(candidate, shown)
        if len(found) == sasc.candidates:
            break
    return list(found.values())


def normalised(text: str) -> str:
    """What two texts have in common that say the same: letters and digits without capitals."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    return " ".join(words) or text.strip()


def _joined(first: Theme, again: Candidate) -> Theme:
    one = first.candidate
    candidate = Candidate(
        one.text, one.prompt_id, one.model, one.prompt_tokens + again.prompt_tokens,
        one.completion_tokens + again.completion_tokens, one.dropped,
    )  # fmt: skip
    return Theme(candidate, first.drawn)
