"""Reads where a word must stand, and what it must begin or end with, out of a phrase."""

import re
from collections.abc import Callable
from functools import partial
from typing import Literal as OneOf

from stages.simulate.word.quoted_strings import AFFIXED, PLACED, QUOTED, Marked, Quoted, Scope
from stages.simulate.word.rules import Kind, Place, Rule

ReadPhrase = Callable[[str], list[Rule]]

_LIST = rf"{QUOTED}(?:\s*(?:,\s*(?:and\s+|or\s+)?|\band\b|\bor\b|/)\s*(?:the\s+words?\s+|the\s+)?{QUOTED})*"
_NOUN = (
    r"(?:(?:a|an|the|any|one of(?: the)?|certain|some)\s+)*(?:(?:following\s+)?"
    r"(?:words?|tokens?|prepositions?|phrases?|articles?|word pieces?|strings?|characters?)\s+)?(?:(?:such as|like)\s+)?"
)
_PHRASE = r"[^,;()\ue000-\uf8ff]*?(?=\s+(?:and|or|but|in|inside|within|at|that)\b|[,;()]|$)"
_RIGHT = (
    r"(?:(?:right|immediately|directly|just|straight|often|usually|typically|mostly|mainly|that|which|"
    r"come|comes|coming|appear|appears|appearing|occur|occurs|occurring|are|is|stand|standing|found)\s+)*"
)
_AFTER = re.compile(
    rf"\b{_RIGHT}(?:after|following|follows?|preceded\s+by|succeeding)\s+{_NOUN}({_LIST}|{_PHRASE})", re.I
)
_BEFORE = re.compile(
    rf"\b{_RIGHT}(?:before|preceding|precedes?|(?:followed|succeeded)\s+by|leading\s+up\s+to)\s+{_NOUN}({_LIST}|{_PHRASE})",
    re.I,
)
_BETWEEN_MARKS = (
    ("quotation marks", r"(?:double |single )?(?:quotation marks?|quotes|quotations|inverted commas|speech marks)"),
    ("brackets", r"square brackets|brackets"),
    ("braces", r"(?:curly )?braces|curly brackets"),
    (
        "parentheses",
        r"parenthes[ei]s|parentheticals?|parenthetical (?:remarks?|expressions?|phrases?|text)|round brackets",
    ),
)
_INSIDE = [
    (
        what,
        re.compile(
            rf"\b(?:that are |which are |found |placed |appearing |occurring )?(?:inside|within|in|enclosed (?:in|by|within)"
            rf"|surrounded by|between|in between|set off by)\s+(?:of\s+)?(?:a\s+)?(?:pairs? of\s+)?(?:{names})\b",
            re.I,
        ),
    )
    for what, names in _BETWEEN_MARKS
] + [
    ("quotation marks", re.compile(r"\bquoted\b(?!\s*strings?)", re.I)),
    ("parentheses", re.compile(r"\b(?:parenthetical|parenthesi[sz]ed|bracketed)\b(?!\s*(?:marks?))", re.I)),
]
_UNIT = (
    r"(sentence|clause|line|paragraph|text|document|passage|sequence|article|section|context|excerpt|snippet|window)s?"
)
_OF = rf"(?:\s+(?:of|in|on|to))?\s+(?:(?:a|an|the|each|every|any|new|whole|entire)\s+)*{_UNIT}\b"
_NEAR = r"(?:\b(?:at|near|from|in|on|that (?:are|is) at)\s+)?(?:\bthe\s+)?(?:\bvery\s+)?"
_FIRST = re.compile(
    rf"{_NEAR}\b(?:first|initial|opening)\s+(?:few\s+)?(?:words?|tokens?|characters?){_OF}|{_NEAR}\b(?:start|beginning|front|head)s?{_OF}"
    rf"|\b{_UNIT}[- ](?:initial|starts?|beginnings?|openers?|openings?|starting)\b"
    rf"|\b(?:that\s+|which\s+)?(?:start|begin|open|starting|beginning|opening|starts|begins|opens)\s+(?:(?:a|an|the|new|each)\s+)*{_UNIT}\b",
    re.I,
)
_LAST = re.compile(
    rf"{_NEAR}\b(?:last|final|closing)\s+(?:few\s+)?(?:words?|tokens?){_OF}"
    rf"|\b(?:at|near|that (?:are|is) at)\s+(?:the\s+)?(?:very\s+)?ends?{_OF}"
    rf"|\b(?:that\s+|which\s+)?(?:end|close|ending|closing|ends|closes)\s+(?:(?:a|an|the|each)\s+)*{_UNIT}\b|\b{_UNIT}[- ]final\b",
    re.I,
)
_TOKEN = re.compile(
    r"\b(?:the\s+)?(last|final|first|initial)\s+(?:(?:word[- ]?)?(?:tokens?|pieces?|parts?|fragments?|subwords?|syllables?))\s+(?:of|in)\s+"
    r"(?!(?:a|the|each|every)?\s*(?:new\s+)?(?:sentence|line|text|document|sequence|paragraph|passage))(?:a\s+|the\s+|each\s+)?",
    re.I,
)
_BARE = r"(?:-[^\W\d_]{1,12}|[^\W\d_]{1,12}-)"
_AFFIX_LIST = rf"(?:{QUOTED}|{_BARE})(?:\s*(?:,\s*(?:and\s+|or\s+)?|\band\b|\bor\b|/)\s*(?:{QUOTED}|{_BARE}))*"
_AFFIX_NOUN = (
    r"(?:the\s+|a\s+)?(?:(?:suffix(?:es)?|prefix(?:es)?|letters?|characters?|strings?|syllables?|sounds?|sequences?"
    r"|word pieces?|pieces?)\s+)?"
)


def _affix_pattern(verbs: str) -> re.Pattern[str]:
    return re.compile(
        rf"\b(?:(?:that|which|often|usually|typically)\s+)*(?:{verbs})\s+{_AFFIX_NOUN}({_AFFIX_LIST})", re.I
    )


_AFFIXES: tuple[tuple[Scope, re.Pattern[str]], ...] = (
    (
        "ending",
        _affix_pattern(
            r"(?:end|ends|ending|terminate|terminating|finish|finishing)\s+(?:in|with|on|by)"
            r"|with\s+the\s+(?:suffix|ending)(?:es|s)?"
        ),
    ),
    (
        "beginning",
        _affix_pattern(r"(?:begin|begins|beginning|start|starts|starting)\s+(?:with|in|by)|with\s+the\s+prefix(?:es)?"),
    ),
    (
        "containing",
        _affix_pattern(
            r"(?:contain|contains|containing|include|includes|including|having)"
            r"(?:\s+(?:a|the)\s+(?:string|sequence|letters?)(?:\s+of\s+letters)?)?"
        ),
    ),
)
_EDGES: tuple[tuple[Kind, re.Pattern[str]], ...] = (("first", _FIRST), ("last", _LAST))
_SIDES: tuple[tuple[Kind, re.Pattern[str]], ...] = (("after", _AFTER), ("before", _BEFORE))
_TEXTS = {"text", "document", "passage", "sequence", "article", "section", "context", "excerpt", "snippet", "window"}


def token_choice(phrase: str) -> tuple[str, OneOf["all", "first", "last"]]:
    """A phrase without "the last token of", and which tokens of a word that means."""
    match = _TOKEN.search(phrase)
    if not match:
        return phrase, "all"
    choice: OneOf["first", "last"] = "last" if match.group(1).lower() in {"last", "final"} else "first"
    return phrase[: match.start()] + phrase[match.end() :], choice


def take_places(phrase: str, marked: Marked, read: ReadPhrase) -> tuple[str, list[Place], list[tuple[Quoted, ...]]]:
    """A phrase in which each place and each affix is one private-use character, and what they stand for.

    Args:
        read: reads a trigger that is not quoted ("after a comma") into rules.
    """
    places: list[Place] = []
    affixes: list[tuple[Quoted, ...]] = []

    for scope, pattern in _AFFIXES:
        phrase = pattern.sub(partial(_take_affix, affixes, marked, scope), phrase)
    for what, pattern in _INSIDE:
        phrase = pattern.sub(partial(_take_inside, places, what), phrase)
    for kind, pattern in _EDGES:
        phrase = pattern.sub(partial(_take_edge, places, kind), phrase)
    for kind, pattern in _SIDES:
        phrase = pattern.sub(partial(_take_side, places, kind, marked, read), phrase)
    return phrase, places, affixes


def _placed(places: list[Place], place: Place) -> str:
    places.append(place)
    return f" {chr(0xE800 + len(places) - 1)} "


def _take_affix(affixes: list[tuple[Quoted, ...]], marked: Marked, scope: Scope, match: re.Match[str]) -> str:
    if scope == "containing" and not _may_contain(match.string[: match.start()], match.group()):
        return match.group()
    affixes.append(_affixes(match.group(1), marked, scope))
    return f" {chr(0xF000 + len(affixes) - 1)} "


def _take_inside(places: list[Place], what: str, _: re.Match[str]) -> str:
    return _placed(places, Place("inside", what))


def _take_edge(places: list[Place], kind: Kind, match: re.Match[str]) -> str:
    """Leaves "word" in the phrase of "the first word of a sentence", which sets it apart from the start of one."""
    noun = " word " if "word" in match.group().lower() else " "
    return noun + _placed(places, Place(kind, _unit(match)))


def _take_side(places: list[Place], kind: Kind, marked: Marked, read: ReadPhrase, match: re.Match[str]) -> str:
    triggers = _triggers(match, marked, read)
    return _placed(places, Place(kind, triggers=triggers)) if triggers else match.group()


def _may_contain(before: str, match: str) -> bool:
    """Whether "including" speaks of letters in a word, and not of examples."""
    return not re.search("includ|having", match, re.I) or bool(
        re.search(r"letters?|string", match + before[-20:], re.I)
    )


def _affixes(listed: str, marked: Marked, scope: Scope) -> tuple[Quoted, ...]:
    strings = [
        marked.string(found) if re.fullmatch(QUOTED, found) else found
        for found in re.findall(f"{QUOTED}|{_BARE}", listed)
    ]
    return tuple(Quoted(string.strip("-–…").strip() or string, scope) for string in strings)


def _unit(match: re.Match[str]) -> str:
    unit = next(group for group in match.groups() if group).lower()
    return "text" if unit in _TEXTS else "line" if unit in {"line", "paragraph"} else "sentence"


def _triggers(match: re.Match[str], marked: Marked, read: ReadPhrase) -> tuple[Rule, ...]:
    listed = match.group(1)
    strings = [marked.string(found) for found in re.findall(QUOTED, listed)]
    if strings:
        piece = re.search(r"pieces?\b|tokens?\b|subword", match.group()[: match.start(1) - match.start()], re.I)
        scope: Scope = "token" if piece else "word"
        return (Rule(quoted=tuple(Quoted(string, scope) for string in strings)),)
    if not listed.strip() or re.search(f"{PLACED}|{AFFIXED}", listed):
        return ()
    return tuple(read(listed))
