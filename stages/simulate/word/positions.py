"""Takes out of an explanation what is not plain English: quoted strings, where a word must stand, how it must begin or end.

Each becomes one private-use character, so that the rest can be read as a phrase.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal as OneOf

from stages.simulate.word.rules import Kind, Place, Quoted, Rule, Scope

MOST = 400
"""Marks of one kind in an explanation; further ones stay in the text."""
QUOTED = "[\ue000-\ue7ff]"
PLACED = "[\ue800-\uefff]"
AFFIXED = "[\uf000-\uf7ff]"
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_STRAIGHT = str.maketrans("“”„‟″«»‘’‚‛`´", '"""""""\'\'\'\'``')
_QUOTE = re.compile(  # a quotation of more than 60 characters is a passage, not a word, and is read as English
    r"""'(")'|"(")"|`([^`]{1,60})`|"(?!")([^"]{1,60})"|(?<![\w'])'([^'"]{1,60}|'\w{1,2}|n't)'(?![\w'])"""
)
_ABBREVIATED = (
    (re.compile(r"\be\.? ?g\.", re.I), "such as"),
    (re.compile(r"\bi\.? ?e\.", re.I), "namely"),
    (re.compile(r"\betc\."), ""),
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", "↵": "\n", "⏎": "\n"}

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


def take_quotes(explanation: str) -> "Taken":
    """The explanation with its quotation marks made straight and its quoted strings taken out."""
    strings: list[str] = []

    def replace(match: re.Match[str]) -> str:
        inner = next(group for group in match.groups() if group is not None)
        if len(strings) >= MOST or not inner:
            return inner
        strings.append(_clean(inner))
        return chr(0xE000 + len(strings) - 1)

    text = _PRIVATE.sub(" ", explanation).translate(_STRAIGHT)
    for short, meant in _ABBREVIATED:
        text = short.sub(meant, text)
    text = _QUOTE.sub(replace, text).replace('"', " ").replace("`", " ")
    return Taken(re.sub(r"\s+", " ", text).strip(), strings)


def _clean(quoted: str) -> str:
    """A quoted string without the signs that tokenizers and prompts write for white space."""
    for sign, meant in _ESCAPES.items():
        quoted = quoted.replace(sign, meant)
    quoted = quoted.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
    bare = quoted.rstrip(",.;:") if any(letter.isalnum() for letter in quoted) else quoted
    return bare if bare.strip() else quoted


def token_choice(phrase: str) -> tuple[str, OneOf["all", "first", "last"]]:
    """A phrase without "the last token of", and which tokens of a word that means."""
    match = _TOKEN.search(phrase)
    if not match:
        return phrase, "all"
    choice: OneOf["first", "last"] = "last" if match.group(1).lower() in {"last", "final"} else "first"
    return phrase[: match.start()] + phrase[match.end() :], choice


Read = Callable[[str], list[Rule]]
"""Reads a trigger that is not quoted ("after a comma")."""


@dataclass
class Taken:
    """What was taken out of an explanation; each thing is one private-use character in its text."""

    text: str
    """The explanation without its quoted strings."""
    _strings: list[str]
    _places: list[Place] = field(default_factory=list)
    _affixes: list[tuple[Quoted, ...]] = field(default_factory=list)

    def take(self, phrase: str, read: Read) -> str:
        """A part of the text without its places and affixes."""
        for scope, pattern in _AFFIXES:
            phrase = pattern.sub(partial(self._affix, scope), phrase)
        for what, pattern in _INSIDE:
            phrase = pattern.sub(partial(self._placed, Place("inside", what)), phrase)
        for kind, pattern in _EDGES:
            phrase = pattern.sub(partial(self._edge, kind), phrase)
        for kind, pattern in _SIDES:
            phrase = pattern.sub(partial(self._side, kind, read), phrase)
        return phrase

    def strings(self, text: str) -> list[str]:
        """Quoted strings that stand in a text."""
        return [self._strings[ord(mark) - 0xE000] for mark in re.findall(QUOTED, text)]

    def plain(self, text: str) -> str:
        """A part of the text with the quoted strings back in, without quotation marks."""
        return re.sub(QUOTED, lambda match: self.strings(match.group())[0], text)

    def places(self, text: str) -> tuple[Place, ...]:
        """Those that stand in a text."""
        return tuple(self._places[ord(mark) - 0xE800] for mark in re.findall(PLACED, text))

    def affixes(self, text: str) -> list[Quoted]:
        """Those that stand in a text."""
        return [quoted for mark in re.findall(AFFIXED, text) for quoted in self._affixes[ord(mark) - 0xF000]]

    def _placed(self, place: Place, _: re.Match[str] | None = None) -> str:
        self._places.append(place)
        return f" {chr(0xE800 + len(self._places) - 1)} "

    def _affix(self, scope: Scope, match: re.Match[str]) -> str:
        if scope == "containing" and not _may_contain(match.string[: match.start()], match.group()):
            return match.group()
        found = re.findall(f"{QUOTED}|{_BARE}", match.group(1))
        strings = map(self.plain, found)
        self._affixes.append(tuple(Quoted(one.strip("-–…").strip() or one, scope) for one in strings))
        return f" {chr(0xF000 + len(self._affixes) - 1)} "

    def _edge(self, kind: Kind, match: re.Match[str]) -> str:
        """Leaves "word" in the phrase of "the first word of a sentence", which sets it apart from the start of one."""
        unit = next(group for group in match.groups() if group).lower()
        unit = "text" if unit in _TEXTS else "line" if unit in {"line", "paragraph"} else "sentence"
        noun = " word " if "word" in match.group().lower() else " "
        return noun + self._placed(Place(kind, unit))

    def _side(self, kind: Kind, read: Read, match: re.Match[str]) -> str:
        listed, triggers = match.group(1), list[Rule]()
        if strings := self.strings(listed):
            piece = re.search(r"pieces?\b|tokens?\b|subword", match.group()[: match.start(1) - match.start()], re.I)
            scope: Scope = "token" if piece else "word"
            triggers = [Rule(quoted=tuple(Quoted(string, scope) for string in strings))]
        elif listed.strip() and not re.search(f"{PLACED}|{AFFIXED}", listed):
            triggers = read(listed)
        return self._placed(Place(kind, triggers=tuple(triggers))) if triggers else match.group()


def _may_contain(before: str, match: str) -> bool:
    """Whether "including" speaks of letters in a word, and not of examples."""
    spoken = re.search(r"letters?|string", match + before[-20:], re.I)
    return spoken is not None or not re.search("includ|having", match, re.I)
