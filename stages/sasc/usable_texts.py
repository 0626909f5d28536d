"""Which texts for and against an explanation can be used."""

import re
import unicodedata
from collections.abc import Sequence

from stages.sasc.ngram_pieces import normalised_text, word_spans

LEAST_WORDS = 3
LONGEST = 600
"""Characters of a text at most."""
LETTERS = 0.6
"""Share of a text's characters besides white space that have to be letters."""
LEAK_WORDS = 5
"""Words in a row of the request that a text may not repeat."""
_ABOUT_IT = re.compile(
    r"(?:sure|certainly|absolutely|of course|okay|ok|here(?:['’]s| are| is)|below (?:are|is)|the following|these|as requested|"
    r"i(?:['’]m| am) (?:sorry|unable)|(?:unfortunately,? )?i (?:cannot|can['’]?t|won['’]t|hope)|hope|(?:please )?let me know|"
    r"(?:please )?feel free|as an ai|as a (?:large )?language model|notes?|each|all of|none of)\b",
    re.IGNORECASE,
)
"""How a sentence begins that may be about the list and not a text of it."""
_LIST = re.compile(
    r"\b(?:texts?|sentences?|examples?|passages?|list|help(?:s|ful)?|descriptions?|language model|assist|requests?|need "
    r"(?:more|any|further)|fulfil+)\b",
    re.IGNORECASE,
)
_FITTING = re.compile(
    r"\b(?:fit|match|fulfil)(?:s|es|ting|ing)? (?:this|your|the given|the) description\b", re.IGNORECASE
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”")
_NO_TEXT = ("{", "[", "|", "<", "```")
"""Beginnings of what is left of a list in some notation, and of no text."""


def usable(texts: Sequence[str], taken: Sequence[str], request: str = "") -> list[str]:
    """The texts that are texts, say nothing of the request, and repeat neither one another nor those taken."""
    seen = {normalised_text(text) for text in taken}
    found = []
    for text in texts:
        same = normalised_text(text)
        if same not in seen and is_text(text) and not (request and leaks(text, request)):
            seen.add(same)
            found.append(text)
    return found


def is_text(text: str) -> bool:
    """Whether this is a text at all: words, mostly of letters, not a lecture, and no notation of a list."""
    bare = "".join(text.split())
    letters = sum(unicodedata.category(character)[0] in "LM" for character in bare)
    words = sum(text[start].isalnum() for start, _ in word_spans(text))
    return (
        words >= LEAST_WORDS
        and len(text) <= LONGEST
        and letters >= LETTERS * len(bare)
        and not text.startswith(_NO_TEXT)
    )


def leaks(text: str, request: str) -> bool:
    """Whether a text talks about what was asked: LEAK_WORDS words in a row of the request, or about the list itself.

    What the request quotes, such as a phrase that texts are to hold, may stand in them.
    """
    if _FITTING.search(text) or (_ABOUT_IT.match(text) and (text.rstrip().endswith(":") or _LIST.search(text))):
        return True
    asked, said = f" {normalised_text(_QUOTED.sub(' | ', request))} ", normalised_text(text).split()
    runs = (said[start : start + LEAK_WORDS] for start in range(len(said) - LEAK_WORDS + 1))
    return any(f" {' '.join(run)} " in asked for run in runs)
