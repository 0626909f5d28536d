"""What an explanation says, once read: rules that give the tokens of a text values from 0 to 1."""

from dataclasses import dataclass, field
from typing import Literal as OneOf

Scope = OneOf["word", "token", "either", "ending", "beginning", "containing"]
Kind = OneOf["after", "before", "inside", "first", "last"]


@dataclass(frozen=True)
class Quoted:
    """A quoted string and what it must equal."""

    text: str
    scope: Scope
    weight: float = 1.0


@dataclass(frozen=True)
class Place:
    """Where a word must stand."""

    kind: Kind
    what: str = ""
    """For inside: "parentheses", "quotation marks", ...; for first and last: "sentence", "line" or "text"."""
    triggers: tuple["Rule", ...] = ()
    """For after and before: what stands beside the word."""


@dataclass(frozen=True)
class Rule:
    """One item of an explanation. What it names (quoted strings, a form, a meaning, or else every word), where, not which.

    Without quoted strings, forms and meaning it names every word.
    """

    weight: float = 1.0
    quoted: tuple[Quoted, ...] = ()
    forms: tuple[str, ...] = ()
    """Names in forms.FORMS; all must hold."""
    meaning: str = ""
    """A phrase in plain English."""
    places: tuple[Place, ...] = ()
    """All must hold."""
    excluded: tuple["Rule", ...] = ()
    tokens: OneOf["all", "first", "last"] = "all"
    """Which tokens of each word."""
    marks: bool = field(default=False)
    """Whether "every word" takes in punctuation marks."""

    def meanings(self) -> list[str]:
        """All phrases in it that call for meaning."""
        inner = [rule for place in self.places for rule in place.triggers] + list(self.excluded)
        return [phrase for phrase in [self.meaning] if phrase] + [m for rule in inner for m in rule.meanings()]
