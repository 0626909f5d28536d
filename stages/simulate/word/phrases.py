"""The phrases by which explanations name forms, and the phrases that carry nothing."""

import re
import tomllib
from pathlib import Path

from stages.english.word_classes import LISTS

_PHRASES: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("form_phrases.toml").read_text(encoding="utf-8")
)
FORM_PHRASES = {form: re.compile(rf"(?<![\w-])(?:{'|'.join(phrases)})(?![\w-])") for form, phrases in _PHRASES.items()}
"""By form, what finds any of its phrases as whole words."""
FILTERS = frozenset({
    "past tense", "-ing", "plurals", "capitalised", "names", "acronyms", "comparatives", "superlatives", "adverbs", "lower case",
})  # fmt: skip
"""Forms that go with a meaning: "past-tense verbs of saying"."""
HEADS = frozenset({
    "numbers", "numerals", "years", "dates", "pronouns", "determiners", "prepositions", "question words",
})  # fmt: skip
"""Forms that keep their sense where more is said of them after: "numbers in sports results"."""
PARTS_OF_SPEECH = frozenset({"verbs", "nouns", "adjectives"})
"""Told poorly by form: used only where nothing else is said."""


_SUBJECT = r"(?:this|the|that|it|an?)?\s*(?:neuron|unit|feature|latent|node|direction|module|it)"
_DEGREE = (
    r"(?:strongly|mainly|mostly|primarily|chiefly|typically|usually|often|generally|specifically|especially|highly|very|most"
    r"|frequently|consistently|also|seems? to|appears? to|tends? to|likely|probably)"
)
_VERB = (
    r"(?:fires?|activates?|responds?|reacts?|detects?|finds?|looks? for|attends? to|recogni[sz]es?|identif(?:y|ies)|represents?"
    r"|encodes?|tracks?|captures?|picks? up|spikes?|lights? up|is (?:\w+ )?(?:active|activated|sensitive|selective|triggered"
    r"|tuned|specialized|specialised|responsive)|finding|detecting|firing|activating|responding|looking for|find)"
)
BOILERPLATE = re.compile(
    rf"^\s*(?:explanation\s*:)?\s*(?:the main thing (?:that )?)?(?:{_SUBJECT}\s+)?(?:does\s+is\s+)?(?:{_DEGREE}\s+)*"
    rf"(?:{_VERB})\s+(?:{_DEGREE}\s+)*(?:(?:on|for|to|at|by|in response to|with|when it (?:sees|reads)|whenever|when)\s+)?",
    re.IGNORECASE,
)
INTRODUCTIONS = re.compile(
    r"^\s*(?:the |any |all |some |various |certain |other |mentions? of |references? to |occurrences? of |instances? of |presence of )*"
    r"(?:(?:words?|tokens?|terms?|phrases?|concepts?|nouns?|vocabulary|things|text|language|content|topics?|expressions?)"
    r"(?: (?:and|or|/) (?:words?|phrases?|concepts?|terms?|tokens?|names|ideas))?\s+)?"
    r"(?:that |which |(?:are |is )?(?:closely |strongly |generally )?)?"
    r"(?:(?:are |is )?(?:related|relating|connected|associated|linked|pertaining)(?: to| with)|about|concerning|involving|regarding"
    r"|denoting|describing|meaning|mean|describe|denote|refer to|referring to|having to do with|have to do with|to do with"
    r"|indicating|indicate|expressing|express|naming|name|names? (?:of|for)|for|of|like)\s+",
    re.IGNORECASE,
)
"""What may stand before the subject matter: "words related to"."""


def read_forms(text: str) -> tuple[tuple[str, ...], str]:
    """The forms that a phrase names, and the phrase itself if it also has a meaning of its own."""
    rest = text.lower()
    forms: list[str] = []
    for form, pattern in FORM_PHRASES.items():
        match = pattern.search(rest)
        if match and match.group().strip():
            leading = not _content(rest[: match.start()])
            following = _content(rest[match.end() :])
            alone = leading and not following
            if alone or form in FILTERS or (form in HEADS and leading):
                forms.append(form)
                rest = rest[: match.start()] + " " + rest[match.end() :]
    left = _content(rest)
    if left and any(form in PARTS_OF_SPEECH for form in forms):
        forms = [form for form in forms if form not in PARTS_OF_SPEECH]
    return tuple(forms), text.strip(" .,:-") if left else ""


def _content(text: str) -> list[str]:
    """The words of a phrase that say something."""
    return [
        word for word in re.findall(r"[^\W_]+(?:[.'-][^\W_]+)*", text) if word not in LISTS["say nothing of their own"]
    ]
