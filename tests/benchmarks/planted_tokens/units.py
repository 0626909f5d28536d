"""Token-level units whose rule is known, with an explanation that is right, and what counts as finding it.

The 32 units of `tests.benchmarks.planted` and further ones: places in a text, topics, code, other languages, and the same rule
binary, graded and decaying. T tokens of a sequence.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.english.text import split_words
from tests.benchmarks.planted import FORM, MEANING, Activations, Fires, Planted, listed
from tests.benchmarks.planted import UNITS as WORD_UNITS

PEAK = 10.0
DECAY = 0.7
"""What is left of an activation on the next word."""
LEAST = 0.5
"""Below this a decaying activation is 0."""
TOPIC_WORDS = 3
"""Words of a topic that make a sequence one about it."""
Inside = Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]
"""By name of a passage's kind (code, french, german), (T,) whether a token stands in one."""
Values = Callable[[Sequence[str], Inside], Activations]


@dataclass(frozen=True)
class TokenUnit:
    """A unit, a right explanation of it, and when another one counts as right too."""

    name: str
    shape: str
    """binary, graded or decaying."""
    explanation: str
    pattern: str
    """Regular expression, whatever the case: an explanation that it matches names the concept."""
    values: Values
    """Tokens to (T,) activations, 0 where it does not fire."""
    words: frozenset[str] = frozenset()
    """Words in lower case that an explanation by quoted words may name instead; empty where the rule is none of words."""

    def named_by(self, explanation: str) -> bool:
        """Whether the explanation names the concept; words that it merely quotes do not, unless the pattern has quotes too."""
        said = explanation if '"' in self.pattern else re.sub(r'"[^"]*"', '""', explanation)
        return re.search(self.pattern, said, re.IGNORECASE) is not None

    def listed_by(self, explanation: str) -> bool:
        """Whether it quotes three or more of the unit's words, and these are most of what it quotes."""
        quoted = [word.lower() for word in re.findall(r'"([^"]+)"', explanation)]
        members = sum(word in self.words for word in quoted)
        return members >= 3 and members > len(quoted) / 2


def binary(fires: Fires) -> Values:
    """PEAK on all tokens of a word that it fires on."""
    return _spread(lambda level, fired: PEAK if fired else 0.0, fires)


def decaying(fires: Fires) -> Values:
    """PEAK on a word that it fires on, DECAY of what was there on the words after it."""
    return _spread(lambda level, fired: PEAK if fired else level * DECAY if level * DECAY >= LEAST else 0.0, fires)


def _spread(step: Callable[[float, bool], float], fires: Fires) -> Values:
    def values(tokens: Sequence[str], inside: Inside) -> Activations:
        found = np.zeros(len(tokens), dtype=np.float32)
        words, level = split_words(tokens), 0.0
        for index, word in enumerate(words):
            level = step(level, fires(words, index))
            found[word.start : word.stop] = level
        return found

    return values


def about(members: frozenset[str]) -> Values:
    """PEAK on every token of a sequence with TOPIC_WORDS or more of the words."""

    def values(tokens: Sequence[str], inside: Inside) -> Activations:
        count = sum(word.text.lower() in members for word in split_words(tokens))
        return np.full(len(tokens), PEAK if count >= TOPIC_WORDS else 0.0, dtype=np.float32)

    return values


def within(kind: str) -> Values:
    """PEAK on every token of a kind of passage."""
    return lambda tokens, inside: np.where(inside[kind], PEAK, 0.0).astype(np.float32)


def by_length(least: int) -> Values:
    """One more for each letter from `least` on, PEAK at most, on words of letters."""

    def values(tokens: Sequence[str], inside: Inside) -> Activations:
        found = np.zeros(len(tokens), dtype=np.float32)
        for word in split_words(tokens):
            if word.text.isalpha() and len(word.text) >= least:
                found[word.start : word.stop] = min(PEAK, 3.0 + len(word.text) - least)
        return found

    return values


def _quoted(words: Sequence[object], index: int) -> bool:
    marks = [place for place, word in enumerate(words) if '"' in getattr(word, "text", "")]
    before = sum(place < index for place in marks)
    return index not in marks and before % 2 == 1 and before < len(marks)


def _after(pattern: str) -> Fires:
    compiled = re.compile(pattern)
    return lambda text, index: (
        index > 0 and compiled.fullmatch(text[index - 1].text.lower()) is not None and text[index].text[:1].isalnum()
    )


PATTERNS = {
    "colours": r"colou?r", "animals": r"animal|wildlife|creature|livestock", "body": r"\bbod(y|ies|ily)\b|anatom|organs",
    "professions": r"profession|occupation|\bjobs?\b|careers?", "countries": r"countr|nations?\b|states of the world",
    "emotions": r"emotion|feeling", "food": r"\bfoods?\b|drinks?\b|cooking|eating|meals?|ingredient",
    "music": r"music|songs?\b", "family": r"famil|relati(ve|on)s|kin(ship)?\b", "war": r"\bwars?\b|militar|battles?|arm(y|ies)\b|conflict",
    "religion": r"religi|christian|church|faith|theolog|\bgods?\b", "disease": r"disease|illness|medic|health",
    "law": r"\blaws?\b|legal|courts?\b|justice|crim(e|inal)", "water": r"water|rivers?\b|\bseas?\b|lakes?\b|oceans?\b|geograph",
    "sports": r"sports?\b|athlet|games", "education": r"educat|school|universit|academ|colleges?",
    "numbers": r"number|numeral|digit", "years": r"\byears?\b|\bdates?\b", "months": r"month|\bdates?\b",
    "past": r"past[- ]tense|\bpast\b", "after_of": r'after "of"', "before_and": r'before "and"',
    "parentheses": r"parenthes|bracket", "names": r"names?\b|capitali[sz]ed|proper noun", "punctuation": r"punctuation",
    "commas": r"commas?\b", "negation": r"negat|\bnot\b", "ing": r'"-?ing"|-ing\b|gerund|participle',
    "first": r"(first|start|begin)\w* .*sentences?", "acronyms": r"acronym|abbreviation|capital letters|initials|all capitals",
    "quoted": r'article|"the"', "pronouns": r"pronoun",
}  # fmt: skip
"""Of the units of `tests.benchmarks.planted`, by name."""
RIGHT = {name: explanation for name, explanation, _ in MEANING} | {row[0]: row[1] for row in FORM}
LISTS = {name: frozenset(words.split()) for name, _, words in MEANING}


def _graded(unit: Planted) -> TokenUnit:
    words = LISTS.get(unit.name, frozenset())
    return TokenUnit(
        unit.name,
        "graded",
        unit.explanation,
        PATTERNS[unit.name],
        lambda tokens, inside: unit.activations(tokens),
        words,
    )


def _of_words(name: str, shape: str, explanation: str, values: Values) -> TokenUnit:
    return TokenUnit(f"{name}_{shape}", shape, explanation, PATTERNS[name], values, LISTS[name])


def _about(name: str, explanation: str) -> TokenUnit:
    return TokenUnit(f"{name}_texts", "binary", explanation, PATTERNS[name], about(LISTS[name]), LISTS[name])


_NUMBER_FIRES = next(row[3] for row in FORM if row[0] == "numbers")
_NEGATION_FIRES = next(row[3] for row in FORM if row[0] == "negation")
TOPICS = (("war", "war"), ("law", "law"), ("religion", "religion"), ("disease", "illness and medicine"))
SHAPED = ("colours", "animals", "family", "religion")
"""Lists of words that are planted in all three shapes."""
PLACED = [
    TokenUnit("in_quotes", "binary", "words inside quotation marks", r"(inside|within|in|between) quot|quoted|quotation", binary(_quoted)),
    TokenUnit("after_in", "binary", 'words right after "in"', r'after[^;]*"in"', binary(_after("in"))),
    TokenUnit("after_by", "binary", 'words right after "by"', r'after[^;]*"by"', binary(_after("by"))),
    TokenUnit("after_comma", "binary", "words right after commas", r"after[^;]*comma", binary(_after(","))),
    TokenUnit("sentence_start", "binary", "the first word of a sentence", PATTERNS["first"], binary(
        lambda text, index: index > 0 and text[index - 1].text in {".", "?", "!"} and text[index].text[:1].isalpha()
    )),
    TokenUnit("long_words", "graded", "long words", r"long(er)? words|length", by_length(11)),
    TokenUnit("numbers_decaying", "decaying", "numbers and the words right after them", PATTERNS["numbers"], decaying(_NUMBER_FIRES)),
    TokenUnit(
        "negation_decaying", "decaying", "negation words and the words right after them", PATTERNS["negation"], decaying(_NEGATION_FIRES)
    ),
    TokenUnit("code", "binary", "computer code", r"\bcode\b|program|software|source|python", within("code")),
    TokenUnit("french", "binary", "words in French", r"\bfrench\b|foreign|non-english (words|text)|other languages?", within("french")),
    TokenUnit("german", "binary", "words in German", r"\bgerman\b|foreign|non-english (words|text)|other languages?", within("german")),
]  # fmt: skip
UNITS = [
    *map(_graded, WORD_UNITS),
    *(_of_words(name, "binary", RIGHT[name], binary(listed(" ".join(LISTS[name])))) for name in SHAPED),
    *(
        _of_words(name, "decaying", f"{RIGHT[name]}, and the words right after them", decaying(listed(" ".join(LISTS[name]))))
        for name in SHAPED
    ),
    *(_about(name, f"texts about {topic}") for name, topic in TOPICS),
    *PLACED,
]  # fmt: skip
