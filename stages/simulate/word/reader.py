"""Reads an explanation in plain English into rules.

A clause is split into items at commas and "and"; each item becomes a rule. What an item does not say by quoted strings,
forms or places is its meaning, so nothing is ever unreadable.
"""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

from stages.english.word_classes import LISTS
from stages.simulate.word.positions import AFFIXED, PLACED, QUOTED, Taken, take_quotes, token_choice
from stages.simulate.word.rules import Quoted, Rule, Scope

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


LONGEST = 2000
"""Characters of an explanation that are read."""
MOST_RULES = 48
DEEPEST = 2
"""Levels of places within places, as in "words after numbers inside parentheses"."""
LIST_END = 0.6
"""Weight of the last quoted string of a list; the first has 1, those between lie on a line."""
CLAUSE_STEP = 0.85
"""Each further clause counts for this much of the one before."""
ELSEWHERE = 0.5
"""Weight of a rule outside the places named by "especially after ..."."""

_NARROWS = re.compile(
    r"(?:especially|particularly|in particular|mostly|mainly|usually|often|typically)\b", re.IGNORECASE
)
_CLAUSE = re.compile(
    r"\s*;\s*|(?<=[^\s.A-Z])[.!?]\s+(?=\S)|,?\s+(?=(?:and|but) (?:also|sometimes|occasionally|weakly|to a lesser)\b)"
    r"|,?\s+(?=(?:as well as|along with|in addition to|in particular)\b)"
    r"|,\s+(?=(?:also|sometimes|occasionally|weakly|especially|particularly|mostly|mainly|usually|often|typically)\b)"
)
_EXCLUSION = re.compile(
    r",?\s*(?:\b(?:but|and) not\b|\bexcept(?:ing)?(?: for| when)?\b|\bexcluding\b|\bother than\b|\bapart from\b|\baside from\b"
    r"|\brather than\b|\bnot including\b|\binstead of\b|\bunless\b|\b(?:that|which) (?:are|is|do|does) not\b"
    r"|\bnot (?=(?:about|related|ending|starting|beginning"
    r"|containing|in|inside|within|enclosed|right|immediately|directly|after|before"
    r"|following|followed|preceded|preceding|at|capitali[sz]ed)\b|" + QUOTED + r")"
    r"|^not\b|\bbut never\b|\bunrelated to\b|\bwhich have nothing to do with\b|\b(?:that )?ha(?:ve|s|ving) nothing to do with\b"
    r"|\b(?:the )?opposite of\b|\b(?:every|any)thing but\b)\s*",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"\b(?:sometimes|occasionally|rarely|possibly|maybe|perhaps|slightly|to a lesser (?:extent|degree)|less strongly"
    r"|less often|somewhat|partly|weakly)\b,?\s*",
    re.IGNORECASE,
)
_STRONG = re.compile(
    r"\b(?:most strongly|above all|most of all|first and foremost|strongly|in particular|especially|mainly|primarily)"
    r"\b,?\s*",
    re.IGNORECASE,
)
_ALSO = re.compile(
    r"^(?:and |but )?(?:also |as well as |along with |in addition to )|^(?:and|but|or)\s+|^,\s*|\b(?:also|as well)$",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(
    r"\s*,\s*(?:and\s+|or\s+|and/or\s+)?|\s+(?:and/or|and|or|&)\s+|\s*/\s*(?=" + QUOTED + r")|\s*:\s*|"
    r"\s*[()]\s*|\s+(?=(?:such as|like|including|for example|for instance|e\.g\.|i\.e\.)\s)"
)
_EXAMPLES = re.compile(
    r"\s*(?:such as|like|including|for example|for instance|e\.g\.|i\.e\.|namely)\s*,?\s*", re.IGNORECASE
)
_PIECE = re.compile(
    r"\b(?:word[- ]?)?(?:pieces?|tokens?|subwords?|sub-words?|fragments?|syllables?|strings?|characters?)\b", re.I
)
_WORD = re.compile(
    r"\bwords?\b|\b(?:noun|verb|name|pronoun|article|conjunction|adjective|adverb)s?\b|preposition", re.I
)
_SUFFIX = re.compile(r"\b(?:suffix(?:es)?|endings?|at the ends? of (?:a |the )?words?|word-final)\b", re.I)
_PREFIX = re.compile(r"\b(?:prefix(?:es)?|at the (?:start|beginning)s? of (?:a |the )?words?|word-initial)\b", re.I)
_BARE_WORD = re.compile(r"the (?:word|token|preposition|article|conjunction|pronoun|particle) ([^\W\d_]+)", re.I)
_ABOUT = re.compile(
    r"(?:related|relating|connected|associated|linked|pertaining|similar|refer|refers|referring|relevant)(?: closely)?(?: to| with)|about"
    r"|concerning|meaning|mean|synonyms? (?:of|for)|describing|(?:concept|theme|topic|idea|notion|sense|meaning|subject)s? of|to do with"
    r"|in the sense of",
    re.I,
)
_ANY = re.compile(r"\b(?:every|any|all)(?:thing|\s+(?:words?|tokens?|texts?))?\b|\bwords?\b|\btokens?\b", re.I)


def read_explanation(explanation: str) -> tuple[Rule, ...]:
    """The rules of an explanation, the weightiest first as a rule; empty for an explanation without words."""
    taken = take_quotes(explanation[:LONGEST])
    rules: list[Rule] = []
    weight = 1.0
    for clause in _CLAUSE.split(taken.text):
        if not clause or not re.search(r"\w|" + QUOTED, clause):
            continue
        found = [replace(rule, weight=rule.weight * weight) for rule in _read_clause(clause, taken)]
        if rules and _NARROWS.match(clause) and all(rule == Rule(rule.weight, places=rule.places) for rule in found):
            narrowed = [replace(rules[-1], places=rules[-1].places + rule.places) for rule in found]
            rules = [*rules[:-1], *narrowed, replace(rules[-1], weight=rules[-1].weight * ELSEWHERE)]
            continue
        rules += found
        weight *= CLAUSE_STEP if found else 1.0
    if not rules and _ANY.search(taken.text):
        rules = [Rule(marks=not re.search("word", taken.text, re.I))]
    return tuple(rules[:MOST_RULES])


def _read_clause(clause: str, taken: Taken) -> list[Rule]:
    """The rules of one clause: what it names, less what it excludes."""
    weight = 0.5 if _WEAK.search(clause) else 1.0
    clause = BOILERPLATE.sub("", _ALSO.sub("", _WEAK.sub("", clause)).strip())
    clause = re.sub(r"[\s,:.]+(?:and|or|but)?$", "", _STRONG.sub("", clause).strip(" .,:"))
    parts = _EXCLUSION.split(clause, maxsplit=1)
    rules = _read_list(parts[0], taken)
    if len(parts) > 1:
        excluded = tuple(replace(rule, weight=1.0) for rule in _read_list(parts[1], taken))
        marks = bool(re.search(r"thing|token|text", parts[0], re.I)) or not parts[0]
        rules = [replace(rule, excluded=excluded) for rule in rules or [Rule(marks=marks)]] if excluded else rules
    return [replace(rule, weight=rule.weight * weight) for rule in rules]


def _read_list(clause: str, taken: Taken, depth: int = 0) -> list[Rule]:
    """The rules of a list of items, joined where they make one phrase of meaning or one list of quoted strings."""
    text, tokens = token_choice(clause)
    if depth < DEEPEST:
        text = taken.take(text, lambda phrase: _read_list(phrase, taken, depth + 1))
    rules: list[Rule] = []
    scope: Scope = "either"
    start, last_end, examples = 0, -1, False
    for separator in [*_SEPARATOR.finditer(text), re.compile("$").search(text)]:
        assert separator is not None
        item = text[start : separator.start()]
        example = _EXAMPLES.match(item)
        examples = examples or example is not None
        rule, scope = _read_item(_EXAMPLES.sub("", item), taken, scope)
        if rule is not None and rule.meaning and examples and rules and rules[0].forms:
            rule = Rule(quoted=(Quoted(_EXAMPLES.sub("", item).strip(), "word"),), places=rule.places)
        if rule is not None:
            between = text[last_end:start] + (example.group() if example else "")
            joined = _join(rules[-1], rule, between) if rules else None
            rules = [*rules[:-1], joined] if joined else [*rules, rule]
            last_end = separator.start()
        start = separator.end()
    if any(rule.meaning for rule in rules):
        rules = [rule for rule in rules if not rule.forms or rule.places or not PARTS_OF_SPEECH.issuperset(rule.forms)]
    return [replace(_graded(rule), tokens=tokens) for rule in rules]


def _read_item(item: str, taken: Taken, scope: Scope) -> tuple[Rule | None, Scope]:
    """The rule of one item, if it says anything, and the scope that a bare quoted string after it takes over."""
    here, affixed = taken.places(item), taken.affixes(item)
    text = re.sub(AFFIXED, " ", re.sub(PLACED, " ", item).strip()).strip()
    strings = taken.strings(text)
    around = re.sub(QUOTED, " ", text)
    if strings and _ABOUT.search(around):
        return Rule(meaning=taken.plain(text), places=here), "either"
    if strings:
        scope = _scope(around, scope)
        return Rule(quoted=tuple(_quoted(string, scope) for string in strings), places=here), scope
    bare = _BARE_WORD.fullmatch(text)
    if bare:
        return Rule(quoted=(Quoted(bare.group(1), "word"),), places=here), "word"
    forms, meaning = read_forms(text)
    if affixed:
        return Rule(quoted=tuple(affixed), forms=forms, places=here), "either"
    named = bool(forms or meaning or here)
    scope = _scope(text, "either") if text and (named or _ANY.search(text)) else scope
    if not named:
        return None, scope
    edge = any(place.kind in {"first", "last"} for place in here) and not re.search("word", text, re.I)
    marks = edge or bool(re.search("token|thing", text, re.I))
    return Rule(forms=forms, meaning=meaning, places=here, marks=marks), scope


def _scope(around: str, default: Scope) -> Scope:
    """What quoted strings must equal, from the words around them."""
    if _SUFFIX.search(around):
        return "ending"
    if _PREFIX.search(around):
        return "beginning"
    if _PIECE.search(around):
        return "token"
    return "word" if _WORD.search(around) else default


def _quoted(string: str, scope: Scope) -> Quoted:
    """A quoted string; "-ing", "un-" and "-graph-" carry their scope with them."""
    left, right = (string[:1] in "-–…" and len(string) > 2), (string[-1:] in "-–…" and len(string) > 2)
    bare = string.strip("-–…") if (left or right) else string
    if not bare:
        return Quoted(string, scope)
    affix: Scope = "containing" if left and right else "ending" if left else "beginning" if right else scope
    return Quoted(bare, affix)


def _join(before: Rule, rule: Rule, between: str) -> Rule | None:
    """One rule instead of two where the second carries on the first; None where it does not."""
    if before.quoted and rule.quoted and not before.forms and not rule.forms and not before.places:
        return replace(before, quoted=before.quoted + rule.quoted, places=rule.places)
    plain = not (before.quoted or rule.quoted or before.forms or rule.forms or before.places)
    if plain and before.meaning and rule.meaning:
        connector = between if between.strip() else " "
        return replace(before, meaning=before.meaning + connector + rule.meaning, places=rule.places)
    return None


def _graded(rule: Rule) -> Rule:
    """Quoted strings that stand later in a list count less."""
    last = len(rule.quoted) - 1
    if last < 1:
        return rule
    step = (1.0 - LIST_END) / last
    return replace(rule, quoted=tuple(replace(q, weight=1.0 - step * k) for k, q in enumerate(rule.quoted)))
