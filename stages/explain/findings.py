"""The few features that carry a unit's activation: greedy forward selection with shrunken strengths.

Shapes as in features.py: R tokens, P pairs, F features, C cells of a grouping.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.explain.features import AFTER, PIECE, PLACE, WORD, Feature, Floats, Grouping, Ints, Observations, summed

SHRINK_WORD = 2.0
"""Tokens at the unit's mean that a word or piece is averaged with, so that one lucky token is not believed."""
SHRINK_RULE = 5.0
"""The same for a rule."""

SIGNIFICANT = 6.0
"""Every finding but the first must remove the squared error of this many average tokens, at least."""
SAME = 0.6
"""A word or piece is left out if this share of its tokens belongs to one that was found before."""


@dataclass(frozen=True)
class Finding:
    """A feature that was selected."""

    feature: Feature
    strength: float
    """Shrunken mean activation above what the findings before it leave, in activation units."""
    count: float
    """Tokens that hold it, those of the table by their weight."""
    gain: float
    """Share of the variance in the evidence that it explains beyond the findings before it."""


def select(observed: Observations, kinds: Sequence[str], limit: int) -> list[Finding]:
    """Up to `limit` features of some kinds, each with the most to add to those before it.

    A word or piece counts for what it explains in the evidence, strength^2 x count with a shrunken strength. A rule,
    which holds of many tokens, counts for what its strength on the *other* sequences explains of each sequence
    (leave-one-out); for a form, the same with words, if that is less. So a rule that holds by chance in a few sequences,
    or a form that owes all to one word, counts nothing.
    """
    allowed = np.array([feature.kind in kinds for feature in observed.features]) & ~_whole(observed)
    residual = observed.activations - observed.activations.mean()
    variance = float(residual @ residual)
    found: list[Finding] = []
    for _ in range(limit):
        strength, gain = _gains(residual, observed)
        gain = np.where(allowed & (strength > 0), gain, 0.0)
        best = int(np.argmax(gain))
        if gain[best] <= 0 or (found and gain[best] < SIGNIFICANT * float(np.mean(residual**2))):
            break
        total = float(observed.counts[best] + observed.table_counts[best])
        found.append(Finding(observed.features[best], float(strength[best]), total, float(gain[best]) / variance))
        held = observed.rows[observed.columns == best]
        allowed[best] = False
        allowed &= ~_within(held, observed) if observed.lexical[best] else True
        residual[held] -= strength[best]
    return found


def _whole(observed: Observations) -> npt.NDArray[np.bool_]:
    """(F,) pieces that are mostly whole words, which are better called words."""
    counts = dict(zip(observed.features, observed.counts, strict=True))
    words = [counts.get(Feature(WORD, f.text), 0.0) if f.kind == PIECE else 0.0 for f in observed.features]
    return np.array(words) > SAME * np.maximum(observed.counts, 1.0)


def _within(held: Ints, observed: Observations) -> npt.NDArray[np.bool_]:
    """(F,) words and pieces of which most tokens are among those given: they would say the same again."""
    among = np.isin(observed.rows, held).astype(np.float64)
    return observed.lexical & (summed(observed.columns, among, len(observed.features)) > SAME * observed.counts)


def _gains(residual: Floats, observed: Observations) -> tuple[Floats, Floats]:
    """(F,) shrunken strengths, and the squared error that each feature would take away."""
    lexical = observed.lexical
    shrink = np.where(lexical, SHRINK_WORD, SHRINK_RULE) * observed.widths
    sums = summed(observed.columns, residual[observed.rows], len(observed.features))
    total = sums + np.where(lexical, observed.table_sums, 0.0)
    number = observed.counts + np.where(lexical, observed.table_counts, 0.0)
    strength = total / (number + shrink)
    by_sequence, by_word = (_left_out(residual, observed, cells, sums, shrink) for cells in observed.groupings)
    left_out = np.where(observed.of_form, np.minimum(by_sequence, by_word), by_sequence)
    return strength, np.where(lexical, strength**2 * number, left_out)


def _left_out(residual: Floats, observed: Observations, cells: Grouping, sums: Floats, shrink: Floats) -> Floats:
    """(F,) squared error taken away in each group by the strength that the other groups give."""
    inside = summed(cells.of_pair, residual[observed.rows], len(cells.feature))  # (C,)
    outside = sums[cells.feature] - inside
    strength = outside / (observed.counts[cells.feature] - cells.count + shrink[cells.feature])
    return summed(cells.feature, 2 * strength * inside - strength**2 * cells.count, len(sums))


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
    clauses: list[tuple[float, str]] = []
    for kind in dict.fromkeys(finding.feature.kind for finding in findings):
        members = [finding for finding in findings if finding.feature.kind == kind]
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
        if name := mark_name(written):
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
