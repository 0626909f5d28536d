"""Findings in plain English, in phrases that people write and the word simulator reads."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from stages.explain.features import AFTER, PIECE, PLACE, WORD, Feature
from stages.explain.findings import Finding

NAMED_MARKS = {
    '"': "quotation marks", "“": "quotation marks", "”": "quotation marks", "«": "quotation marks", "»": "quotation marks",
    "'": "apostrophes", "’": "apostrophes", "‘": "apostrophes", "`": "backticks", "\n": "line breaks", "\t": "tabs",
    ",": "commas", ".": "full stops", ";": "semicolons", ":": "colons", "-": "hyphens", "–": "dashes", "—": "dashes",
    "?": "question marks", "!": "exclamation marks", "(": "opening parentheses", ")": "closing parentheses",
    "%": "percent signs", "\\": "backslashes", "�": "broken characters", " ": "white space",
}  # fmt: skip
"""Marks that are called by name: a quoted mark is hard to read, or would unbalance the quotation marks."""
FORM_PHRASES = {
    "names": "proper names", "capitalised": "capitalised words", "past tense": "past-tense verbs", "-ing": "-ing verbs",
    "question words": "question words", "units": "units of measure", "negation": "words of negation",
    "numerals": "digits", "auxiliaries": "auxiliary verbs", "possessives": "possessive pronouns",
}  # fmt: skip
MOST_CHARACTERS = 24
"""A longer word (a web address, a run of signs) is left out of a sentence."""
WEAK = 0.4
"""Findings weaker than this share of the strongest are said to count to a lesser degree."""


def compose(findings: Sequence[Finding], spellings: Mapping[str, str], label: str = "") -> str:
    """One sentence from findings, strongest clause first; empty where nothing can be said.

    Args:
        spellings: a word as the unit's texts write it, by the word in lower case.
        label: what the words have in common, such as "words about music"; it closes the sentence as a guess, because
            a small model's label holds less often than the words it was made from.
    """
    if not findings:
        return ""
    ordered = sorted(findings, key=lambda finding: -finding.strength)
    strong = [finding for finding in ordered if finding.strength >= WEAK * ordered[0].strength]
    weak = ordered[len(strong) :]
    clauses = _clauses(strong, spellings)
    lesser = [clause for clause in _clauses(weak, spellings) if clause not in clauses]
    degrees = ["to a lesser degree", *["also weakly"] * len(lesser)]
    clauses += [f"{degree} {clause}" for degree, clause in zip(degrees, lesser, strict=False)]
    clauses += [f"sometimes other {label}"] if label and clauses else []
    return "; ".join(clauses)


def _clauses(findings: Sequence[Finding], spellings: Mapping[str, str]) -> list[str]:
    """Findings of one degree as clauses, by falling strength."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.feature.kind, []).append(finding)
    clauses: list[tuple[float, str]] = []
    for kind, members in groups.items():
        if kind in (WORD, PIECE, AFTER):
            clauses += _lexical(kind, members, spellings)
        else:
            clauses += [(member.strength, phrase(member.feature)) for member in members]
    return list(dict.fromkeys(text for _, text in sorted(clauses, key=lambda clause: -clause[0])))


def _lexical(kind: str, members: Sequence[Finding], spellings: Mapping[str, str]) -> list[tuple[float, str]]:
    """Clauses for words, pieces of words, or words that stand before: a list of the quotable, and marks by name."""
    before = "words right after " if kind == AFTER else ""
    clauses, quoted = [], []
    for member in members:
        text = member.feature.text
        written = text if kind == PIECE else spellings.get(text, text)
        name = mark_name(written)
        if name:
            clauses.append((member.strength, before + name))
        elif is_quotable(written):
            quoted.append((member.strength, written))
    if quoted:
        noun = "" if before else f"the word{' piece' if kind == PIECE else ''}{'s' if len(quoted) > 1 else ''} "
        listed = quote_list([written for _, written in quoted], "or" if before else "and")
        clauses.append((quoted[0][0], before + noun + listed))
    return clauses


def phrase(feature: Feature) -> str:
    """A form or a place in words."""
    if feature.kind == PLACE:
        return "words " + feature.text if feature.text.startswith("inside") else "the " + feature.text
    affix = re.fullmatch(r"(ending in|beginning with) (\S+)", feature.text)
    if affix:
        return f'words {affix.group(1)} "{affix.group(2)}"'
    return FORM_PHRASES.get(feature.text, feature.text)


def quote_list(words: Sequence[str], conjunction: str) -> str:
    """`"of", "in" and "for"`."""
    quoted = [f'"{word}"' for word in words]
    return f" {conjunction} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def mark_name(word: str) -> str:
    """What a mark, or a run of marks, is called; empty for what is not made of marks with names alone."""
    if "�" in word:
        return NAMED_MARKS["�"]
    names = [NAMED_MARKS.get(mark, "") for mark in dict.fromkeys(word)]
    return " and ".join(dict.fromkeys(names)) if all(names) else ""


def is_quotable(word: str) -> bool:
    """Whether a word can stand between quotation marks on one line and be read as what it is."""
    if not word or len(word) > MOST_CHARACTERS or any(mark in word for mark in '"“”„«»`�'):
        return False
    return not any(unicodedata.category(character)[0] in "CZ" for character in word)
