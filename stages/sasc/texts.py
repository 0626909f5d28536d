"""Texts for and against an explanation, and which of them can be used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.sasc.candidates import normalised

LEAST_WORDS = 3
LONGEST = 600
"""Characters of a text at most."""
LETTERS = 0.6
"""Share of a text's characters besides white space that have to be letters."""
LEAK_WORDS = 5
"""Words in a row of the request that a text may not repeat."""
_LEAD_IN = re.compile(
    r"(?:sure|certainly|of course|okay|ok|here (?:are|is)|below (?:are|is)|these are|as requested|i(?:'m| am) sorry|as an ai|note:)\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"\b(?:texts?|sentences?|examples?|list|help|descriptions?|fit|language model|assist)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Texts:
    """Texts for and against an explanation; there may be fewer than were wanted."""

    relevant: list[str]
    baseline: list[str]
    origin: str
    """written by a language model, or retrieved from the corpus."""
    model: str = ""
    prompt_ids: tuple[str, str] = ("", "")
    """Of the relevant and of the baseline texts."""
    prompt_tokens: tuple[int, int] = (0, 0)
    completion_tokens: tuple[int, int] = (0, 0)
    error: str = ""
    """Why there are fewer than were wanted."""


class Synthesizer(Protocol):
    """Provides texts for and against an explanation."""

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind, all different."""
        ...


def is_text(text: str) -> bool:
    """Whether this is a text at all: words, mostly of letters, and not a lecture."""
    bare = "".join(text.split())
    letters = sum(map(str.isalpha, bare))
    return len(text.split()) >= LEAST_WORDS and len(text) <= LONGEST and letters >= LETTERS * len(bare)


def leaks(text: str, request: str) -> bool:
    """Whether a text talks about what was asked: LEAK_WORDS words in a row of the request, or a lead-in to a list."""
    if _LEAD_IN.match(text) and (text.rstrip().endswith(":") or _SUBJECT.search(text)):
        return True
    asked, said = f" {normalised(request)} ", normalised(text).split()
    runs = (said[start : start + LEAK_WORDS] for start in range(len(said) - LEAK_WORDS + 1))
    return any(f" {' '.join(run)} " in asked for run in runs)


def usable(texts: Sequence[str], taken: Sequence[str], request: str = "") -> list[str]:
    """The texts that are texts, say nothing of the request, and are no repetition of one another or of those taken."""
    seen = {normalised(text) for text in taken}
    found = []
    for text in texts:
        same = normalised(text)
        if same not in seen and is_text(text) and not (request and leaks(text, request)):
            seen.add(same)
            found.append(text)
    return found
