"""Units without anything to explain, and tokens that are hard to write down."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.english.forms import FORMS
from stages.evidence import Evidence, Exemplar, TopToken
from stages.explain.explain_units import ExplanationError
from stages.explain.features import SHOWN_FORMS
from stages.explain.findings import is_quotable, mark_name
from stages.explain.word_statistics import StatisticsExplainer
from tests.stages.explain.planted import evidence, one_of
from tests.tiers import examples

HOSTILE = [
    ' "', "”", "\n", "\n\n", "\t", "�", "", " ", "<|im_end|>", "<|im_start|>", "\x00", "\u202e", " '", "\\", "`", "{{", "}}",
    ' O"Neill', " don't", "'s", "```", "[INST]", " of", " \"Ann\"", "—", " İ", "ß", "日", "\r\n", "\u00a0",
]  # fmt: skip


def explain(exemplars: list[Exemplar], rows: list[TopToken] | None = None) -> list[str]:
    known = Evidence("layers.0.mlp", 3, "+", exemplars, rows or [])
    return [candidate.text for candidate in asyncio.run(StatisticsExplainer(None, 4).explain(known, 0))]


def firing_on(token: str) -> list[Exemplar]:
    """Sequences in which one token fires, at several places."""
    exemplars = []
    for number, place in enumerate((2, 4, 5, 3)):
        tokens = [" one", " day", " the", " dog", " came", " home", " late"]
        tokens.insert(place, token)
        exemplars.append(Exemplar(number, "top", tokens, np.eye(len(tokens), dtype=np.float32)[place]))
    return exemplars


def is_safe(text: str) -> bool:
    """One printable line with balanced quotation marks and no mark of a prompt."""
    plain = all(character.isprintable() for character in text) and "�" not in text and "<|" not in text
    return plain and text.count('"') % 2 == 0 and not any(mark in text for mark in "“”„«»`")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([-1.0, -2.0, 0.0], "never fires"),
        ([0.0, 0.0, 0.0], "never fires"),
        ([2.0, 2.0, 2.0], "constant"),
        ([np.nan, np.nan, np.nan], "no activation"),
        ([np.nan, 3.0, 3.0], "constant"),
    ],
)
def test_a_unit_that_says_nothing_is_refused_with_the_reason(values: list[float], reason: str) -> None:
    exemplar = Exemplar(0, "top", [" a", " b", " c"], np.array(values, dtype=np.float32))
    with pytest.raises(ExplanationError, match=reason):
        explain([exemplar])


def test_a_unit_without_exemplars_is_refused() -> None:
    with pytest.raises(ExplanationError, match="unit 3 of layers"):
        explain([])


def test_positions_left_out_of_the_record_play_no_part() -> None:
    known = evidence(one_of("of"))
    changed = [replace(e, tokens=[" Ghost", *e.tokens[1:]]) for e in known.exemplars]
    explained = asyncio.run(StatisticsExplainer(None, 4).explain(replace(known, exemplars=changed), 0))
    assert explained[0].text == 'the word "of"'


def test_infinite_activations_are_left_out() -> None:
    exemplars = firing_on(" of")
    exemplars[0].activations[0] = np.inf
    assert explain(exemplars)[0] == 'the word "of"'


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (' "', "quotation marks"),
        ("”", "quotation marks"),
        ("\n", "line breaks"),
        ("\t", "tabs"),
        ("�", "broken characters"),
        (",", "commas"),
        ("\\", "backslashes"),
        (" (", "opening parentheses"),
        (" don't", 'the word "don\'t"'),
    ],
)
def test_marks_are_called_by_name(token: str, said: str) -> None:
    assert explain(firing_on(token))[0] == said


@pytest.mark.parametrize("token", HOSTILE)
def test_a_hostile_token_gives_a_safe_sentence(token: str) -> None:
    try:
        explained = explain(firing_on(token), [TopToken(token, 1.0, 5)])
    except ExplanationError as error:
        assert "no word or rule" in str(error)  # noqa: PT017
    else:
        assert all(is_safe(text) for text in explained)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(HOSTILE) | st.text(max_size=4), st.floats(-2, 5, width=16)), min_size=2, max_size=24
    ),
    st.integers(1, 4),
)
def test_any_tokens_give_safe_sentences_or_a_reason(pairs: list[tuple[str, float]], copies: int) -> None:
    tokens = [token for token, _ in pairs]
    values = np.array([value for _, value in pairs], dtype=np.float32)
    rows = [TopToken(token, value, 3) for token, value in pairs[:3]]
    try:
        explained = explain([Exemplar(number, "top", tokens, values) for number in range(copies)], rows)
    except ExplanationError as error:
        assert str(error)  # noqa: PT017
    else:
        assert explained
        assert all(is_safe(text) for text in explained), explained


def test_what_can_be_quoted_is_one_readable_word() -> None:
    assert is_quotable("don't")
    assert is_quotable("日本")
    assert not any(is_quotable(word) for word in ["", 'a"b', "a b", "a\tb", "\x07", "�x", "x" * 60])
    assert mark_name("--") == "hyphens"
    assert mark_name('."') == "full stops and quotation marks"
    assert mark_name("a.") == ""


def test_every_form_that_may_be_named_exists() -> None:
    assert set(SHOWN_FORMS) <= set(FORMS)
