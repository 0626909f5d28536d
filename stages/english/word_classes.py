"""Which class an English word belongs to: classes of few members by name, inflected words by their endings.

Every function answers for one word in lower case. A vocabulary is a set of common words in lower case, by which an ending is
told from the end of a stem.
"""

import tomllib
from pathlib import Path
from typing import Any

Vocabulary = frozenset[str]
_WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
CLASSES = {name: frozenset(words.split()) for name, words in _WORDS["classes"].items()}
"""Classes of few members."""
MARKS = _WORDS["marks"]
"""Punctuation marks and symbols by their names."""
LISTS = {name: frozenset(words.split()) for name, words in _WORDS["lists"].items()}
"""Words that rules need: those that follow none, and those that only look as if they did."""
FUNCTION_WORDS = frozenset[str]().union(
    *(CLASSES[name] for name in ("pronouns", "prepositions", "conjunctions", "determiners", "auxiliaries", "negation")),
    ("also", "there", "then", "than", "more", "most"),
)
"""Words that say nothing of what a text is about."""
COMMON = 1500
"""Words of a vocabulary, from the commonest on, that scores are standardised on."""
ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))
"""Endings of inflected words, and what uninflected ones have in their place."""


def whole_words(tokenizer: Any) -> list[str]:
    """The whole lower-case English words of a tokenizer's vocabulary, in its order, the commonest first.

    WordPiece vocabularies mark what continues a word by "##", the others what begins one by "▁" or "Ġ".
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    entries = sorted(vocabulary, key=vocabulary.__getitem__)
    marks = ("▁", "Ġ")
    mark = next((mark for mark in marks if sum(e.startswith(mark) for e in entries) > len(entries) // 10), "")
    words = dict.fromkeys(entry.removeprefix(mark) for entry in entries if entry.startswith(mark))
    return [word for word in words if len(word) > 1 and word.isascii() and word.isalpha() and word.islower()]


def content_words(text: str) -> list[str]:
    """Words of a text in lower case that say what it is about."""
    words = "".join(letter if letter.isalnum() or letter in "'’-" else " " for letter in text.lower()).split()
    bare = [word.strip("'’-") for word in words]
    return [word for word in bare if len(word) > 2 and word not in FUNCTION_WORDS and not word.isdigit()]


def stems(word: str) -> list[str]:
    """A word, and what it may be an inflection of."""
    return [word, *(word.removesuffix(ending) + last for ending, last in ENDINGS if word.endswith(ending))]


def _stems(word: str, ending: str) -> list[str]:
    """What may stand before an ending: "stopp" gives "stopp", "stoppe" and "stop"."""
    stem = word[: -len(ending)]
    found = [stem, stem + "e"]
    if len(stem) > 2 and stem[-1] == stem[-2]:
        found.append(stem[:-1])
    if stem.endswith("i"):
        found.append(stem[:-1] + "y")
    return [candidate for candidate in found if len(candidate) > 1]


def is_past(word: str, vocabulary: Vocabulary) -> bool:
    """Past-tense verbs and past participles in -ed, and the irregular past tenses."""
    if not word.endswith("ed") or len(word) < 4 or word in LISTS["not past"]:
        return word in LISTS["irregular past"]
    known = any(stem in vocabulary for stem in _stems(word, "ed")) or word in LISTS["irregular past"]
    return known or (len(word) > 6 and word not in vocabulary)


def is_ing(word: str, vocabulary: Vocabulary) -> bool:
    """Present participles and gerunds."""
    if not word.endswith("ing") or len(word) < 5 or word in LISTS["not -ing"]:
        return False
    return any(stem in vocabulary for stem in _stems(word, "ing")) or len(word) > 6


def is_plural(word: str, vocabulary: Vocabulary) -> bool:
    """Plural nouns; a verb in the third person looks the same and is taken for one."""
    if word in LISTS["irregular plurals"]:
        return True
    other = word.endswith(("ss", "us", "is", "'s", "’s")) or word in LISTS["not plural"]
    if not word.endswith("s") or len(word) < 4 or other:
        return False
    singulars = [word.removesuffix(ending) + last for ending, last in ENDINGS[:3] if word.endswith(ending)]
    return any(singular in vocabulary for singular in singulars) or word not in vocabulary


def is_comparative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -er that also have an -est, and the irregular ones."""
    regular = word.endswith("er") and len(word) > 4 and word[:-2] + "est" in vocabulary
    return regular or word in LISTS["irregular comparatives"]


def is_superlative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -est that also have an -er, and the irregular ones."""
    regular = word.endswith("est") and len(word) > 5 and word[:-3] + "er" in vocabulary
    return regular or word in LISTS["irregular superlatives"]


def is_adverb(word: str, vocabulary: Vocabulary) -> bool:
    """Adverbs in -ly."""
    if not word.endswith("ly") or len(word) < 5 or word in LISTS["not adverb"]:
        return False
    stem = word[:-2]
    return len(word) > 6 or any(s in vocabulary for s in (stem, stem + "le", stem[:-1] + "y", stem + "l"))


def is_verb(word: str, vocabulary: Vocabulary) -> bool:
    """Verbs: auxiliaries, past tenses, participles, and words that a participle in -ing exists of."""
    if word in CLASSES["auxiliaries"] or is_past(word, vocabulary) or is_ing(word, vocabulary):
        return True
    if len(word) < 3 or word not in vocabulary or word.endswith("ly"):
        return False
    stem = word[:-1] if word.endswith("s") else word
    return stem.removesuffix("e") + "ing" in vocabulary and stem.removesuffix("e") + "ed" in vocabulary


def is_adjective(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives by their endings, and some of the commonest."""
    if word in LISTS["common adjectives"] or is_comparative(word, vocabulary) or is_superlative(word, vocabulary):
        return True
    return len(word) > 5 and word.endswith(
        ("al", "ive", "ous", "ful", "ic", "able", "ible", "less", "ish", "ary", "ant", "ent")
    )


def is_noun(word: str, vocabulary: Vocabulary) -> bool:
    """Words of content that are not told to be anything else."""
    if not word.isalpha() or len(word) < 3 or any(word in members for members in CLASSES.values()):
        return False
    told = is_past(word, vocabulary) or is_ing(word, vocabulary) or is_adverb(word, vocabulary)
    return not told and not is_adjective(word, vocabulary)
