"""What explanations are read as."""

import pytest

from stages.english.forms import FORMS
from stages.simulate.word.reader import read_explanation
from stages.simulate.word.rules import Place, Quoted, Rule


def only(explanation: str) -> Rule:
    rules = read_explanation(explanation)
    assert len(rules) == 1, rules
    return rules[0]


def strings(rule: Rule) -> list[tuple[str, str]]:
    return [(quoted.text, quoted.scope) for quoted in rule.quoted]


@pytest.mark.parametrize(
    "explanation",
    [
        'the words "of", "in" and "for"',
        "the words “of”, “in” and “for”",
        "the words 'of', 'in', or 'for'",
        "This neuron fires strongly on the words `of`, `in` and `for`.",
        "The main thing this neuron does is find the words ‘of’, ‘in’ and ‘for’.",
    ],
)
def test_quoted_words_are_literal_whatever_the_quotation_marks(explanation: str) -> None:
    assert strings(only(explanation)) == [("of", "word"), ("in", "word"), ("for", "word")]


def test_words_quoted_first_count_more() -> None:
    weights = [quoted.weight for quoted in only('the words "of", "in" and "for"').quoted]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == 1.0 > weights[-1] > 0


@pytest.mark.parametrize(
    ("explanation", "read"),
    [
        ('words ending in "-ing"', [("ing", "ending")]),
        ("words that end with -ing or -ed", [("ing", "ending"), ("ed", "ending")]),
        ('words ending in "al", "ic"', [("al", "ending"), ("ic", "ending")]),
        ('the suffix "ly"', [("ly", "ending")]),
        ("words beginning with “un-”", [("un", "beginning")]),
        ('words starting with the prefix "re"', [("re", "beginning")]),
        ('words containing "graph"', [("graph", "containing")]),
        ('the word piece "tion"', [("tion", "token")]),
        ('tokens "tion" and " un"', [("tion", "token"), (" un", "token")]),
        ('the marks "," and "("', [(",", "either"), ("(", "either")]),
        ('"New York" or "Los Angeles"', [("New York", "either"), ("Los Angeles", "either")]),
        ('the token "\\n"', [("\n", "token")]),
        ("the preposition of", [("of", "word")]),
        ('word pieces such as "ing" at the end of words', [("ing", "ending")]),
        ('the possessive "\'s"', [("'s", "either")]),
    ],
)
def test_pieces_and_affixes(explanation: str, read: list[tuple[str, str]]) -> None:
    assert strings(only(explanation)) == read


@pytest.mark.parametrize(
    ("explanation", "kind", "triggers"),
    [
        ('words right after "of", "in" or "at"', "after", ["of", "in", "at"]),
        ('tokens following "of"', "after", ["of"]),
        ('words preceded by the word "of"', "after", ["of"]),
        ('the word that comes right before "of" or "and"', "before", ["of", "and"]),
        ('words followed by "of"', "before", ["of"]),
    ],
)
def test_what_stands_beside_quoted_words(explanation: str, kind: str, triggers: list[str]) -> None:
    rule = only(explanation)
    assert not rule.quoted
    assert not rule.meaning
    (place,) = rule.places
    assert place.kind == kind
    assert [quoted.text for trigger in place.triggers for quoted in trigger.quoted] == triggers


@pytest.mark.parametrize(
    ("explanation", "place"),
    [
        ("the first word of a sentence", Place("first", "sentence")),
        ("words at the beginning of each sentence", Place("first", "sentence")),
        ("sentence-initial words", Place("first", "sentence")),
        ("the start of the text", Place("first", "text")),
        ("the last word of a line", Place("last", "line")),
        ("words inside quotation marks", Place("inside", "quotation marks")),
        ("words in quotes", Place("inside", "quotation marks")),
        ("text enclosed in parentheses", Place("inside", "parentheses")),
        ("words between square brackets", Place("inside", "brackets")),
    ],
)
def test_places(explanation: str, place: Place) -> None:
    rule = only(explanation)
    assert rule.places == (place,)
    assert not rule.meaning


@pytest.mark.parametrize(
    ("explanation", "form"),
    [
        ("numbers", "numbers"), ("digits", "numerals"), ("years", "years"), ("capitalised words", "capitalised"),
        ("capitalized words", "capitalised"), ("words starting with a capital letter", "capitalised"),
        ("proper names", "names"), ("names of people", "names"), ("words in all caps", "acronyms"), ("acronyms", "acronyms"),
        ("punctuation marks", "punctuation"), ("commas", "commas"), ("periods", "full stops"), ("newlines", "line breaks"),
        ("line breaks", "line breaks"), ("hyphens", "hyphens"), ("quotation marks", "quotation marks"),
        ("opening parentheses", "opening parentheses"), ("past-tense verbs", "past tense"), ("verbs in the past tense", "past tense"),
        ("-ing verbs", "-ing"), ("plural nouns", "plurals"), ("words of negation", "negation"), ("personal pronouns", "pronouns"),
        ("the definite article", "articles"), ("prepositions", "prepositions"), ("conjunctions", "conjunctions"),
        ("question words", "question words"), ("modal verbs", "modal verbs"), ("comparatives", "comparatives"),
        ("units of measure", "units"), ("months of the year", "months"), ("days of the week", "days"), ("ordinals", "ordinals"),
    ],
)  # fmt: skip
def test_forms(explanation: str, form: str) -> None:
    rule = only(explanation)
    assert form in rule.forms
    assert not rule.meaning


@pytest.mark.parametrize("form", sorted(FORMS))
def test_each_form_is_read_by_its_own_name(form: str) -> None:
    assert only(form).forms == (form,)
    assert not only(form).meaning


@pytest.mark.parametrize(
    "explanation",
    [
        "war and the military",
        "periods of time",
        "articles about sport",
        "names of countries",
        "words for colours",
        "units of an army",
    ],
)
def test_everything_else_is_meaning(explanation: str) -> None:
    rule = only(explanation)
    assert rule.meaning == explanation
    assert not rule.forms


def test_a_form_may_go_with_a_meaning_and_a_place() -> None:
    rule = only('capitalised words about war after "the"')
    assert rule.forms == ("capitalised",)
    assert "war" in rule.meaning
    assert rule.places[0].kind == "after"


def test_clauses_become_rules_of_falling_weight() -> None:
    rules = read_explanation('words about music; the word "of"; and sometimes numbers')
    assert [bool(rule.meaning) for rule in rules] == [True, False, False]
    assert rules[0].weight > rules[1].weight > rules[2].weight


@pytest.mark.parametrize(
    "explanation", ['animals, but not "dog"', 'animals except "dog"', "animals other than the word “dog”"]
)
def test_exclusions(explanation: str) -> None:
    rule = only(explanation)
    assert rule.meaning == "animals"
    assert strings(rule.excluded[0])[0][0] == "dog"


@pytest.mark.parametrize(
    "explanation",
    [
        "anything except numbers",
        "words that are not numbers",
        "everything but numbers",
        "any word other than numbers",
        "not numbers",
    ],
)
def test_the_opposite_is_every_word_less_what_is_excluded(explanation: str) -> None:
    rule = only(explanation)
    assert rule == Rule(excluded=rule.excluded, marks=rule.marks)
    assert rule.excluded[0].forms == ("numbers",)


def test_tokens_of_words() -> None:
    assert only("the last token of words about music").tokens == "last"
    assert only("the first token of names").tokens == "first"
    assert only("words about music").tokens == "all"


def test_examples_of_a_form_are_quoted_words() -> None:
    forms, examples = read_explanation("negation words such as not and never")
    assert forms.forms == ("negation",)
    assert examples.quoted == (Quoted("not", "word", 1.0), Quoted("never", "word", 0.6))


def test_a_quoted_subject_matter_is_meaning() -> None:
    assert only('words related to "music"').meaning == "words related to music"


def test_especially_narrows_what_was_said() -> None:
    narrow, wide = read_explanation('years, especially after "in"')
    assert narrow.forms == wide.forms == ("years",)
    assert narrow.places
    assert narrow.weight > wide.weight


def test_anything_is_every_token_and_any_word_is_every_word() -> None:
    assert only("anything") == Rule(marks=True)
    assert only("any word") == Rule()


def test_a_trigger_may_be_a_form_or_a_meaning() -> None:
    (numbers,) = only("words after numbers").places[0].triggers
    assert numbers.forms == ("numbers",)
    (titles,) = only("the word before a kind of animal").places[0].triggers
    assert "animal" in titles.meaning
