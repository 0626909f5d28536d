"""The explainer finds the rule of a unit whose rule is known."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from stages.english.text import Word
from stages.evidence import Evidence, Exemplar, TopToken
from stages.explain.word_statistics import StatisticsExplainer
from tests.stages.explain.planted import Fires, after, evidence, one_of


def texts(known: Evidence, candidates: int = 4) -> list[str]:
    return [candidate.text for candidate in asyncio.run(StatisticsExplainer(None, candidates).explain(known, 0))]


def ends_in_ing(words: Sequence[Word], index: int) -> bool:
    return words[index].text.endswith("ing") and words[index].text not in {"king", "morning", "spring", "nothing"}


def is_capitalised(words: Sequence[Word], index: int) -> bool:
    return words[index].text[:1].isupper()


def is_number(words: Sequence[Word], index: int) -> bool:
    return words[index].text.isdigit()


def in_parentheses(words: Sequence[Word], index: int) -> bool:
    before = "".join(word.text for word in words[:index])
    return before.count("(") > before.count(")") and ")" not in words[index].text


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("fires", "said"),
    [
        (one_of("of", "in"), ['"of"', '"in"']),
        (after("of"), ['words right after "of"']),
        (after("the"), ['words right after "the"']),
        (ends_in_ing, ["-ing verbs"]),
        (is_capitalised, ["capitalised words"]),
        (is_number, ["digits"]),
        (in_parentheses, ["words inside parentheses"]),
        (one_of(",", "."), ["commas", "full stops"]),
    ],
)
def test_the_first_clause_names_the_planted_rule(fires: Fires, said: list[str], seed: int) -> None:
    first = texts(evidence(fires, seed=seed))[0].split("; to a lesser degree")[0]
    assert all(phrase in first for phrase in said), first


def test_a_rule_is_preferred_to_the_words_that_happen_to_stand_there() -> None:
    assert not texts(evidence(after("of")))[0].startswith("the word")


def test_a_form_that_owes_all_to_one_word_is_not_named() -> None:
    explained = texts(evidence(one_of("of")))
    assert explained[0] == 'the word "of"'
    assert not any("prepositions" in text for text in explained)


def test_a_word_that_fires_strongly_stands_before_one_that_fires_often() -> None:
    strong = evidence(one_of("in"), noise=0.05)
    weak = evidence(one_of("the"), noise=0.0)
    exemplars = [
        replace(one, activations=(one.activations + 0.6 * other.activations).astype(np.float32))
        for one, other in zip(strong.exemplars, weak.exemplars, strict=True)
    ]
    assert texts(replace(strong, exemplars=exemplars, top_tokens=[]))[0].startswith('the words "in" and "the"')


def test_a_baseline_above_zero_changes_nothing() -> None:
    known = evidence(after("of"))
    raised = [replace(e, activations=(e.activations + 5).astype(np.float32)) for e in known.exemplars]
    rows = [replace(row, mean_activation=row.mean_activation + 5) for row in known.top_tokens]
    assert texts(replace(known, exemplars=raised, top_tokens=rows)) == texts(known)


def test_the_scale_of_activations_changes_nothing() -> None:
    known = evidence(is_number)
    scaled = [replace(e, activations=(e.activations * 64).astype(np.float32)) for e in known.exemplars]
    rows = [replace(row, mean_activation=row.mean_activation * 64) for row in known.top_tokens]
    assert texts(replace(known, exemplars=scaled, top_tokens=rows)) == texts(known)


def test_deep_negative_activations_are_not_taken_for_firing() -> None:
    known = evidence(one_of("of"))
    marked = []
    for exemplar in known.exemplars:
        values = exemplar.activations.copy()
        values[[position for position, token in enumerate(exemplar.tokens) if token == " the"]] = -3.0
        marked.append(replace(exemplar, activations=values))
    explained = texts(replace(known, exemplars=marked, top_tokens=[]))
    assert '"of"' in explained[0]
    assert not any('"the"' in text.replace('after "the"', "") for text in explained)


def test_the_token_table_adds_words_that_the_exemplars_lack() -> None:
    known = evidence(one_of("of"))
    added = replace(known, top_tokens=[TopToken(" for", 0.9, 40), *known.top_tokens])
    assert '"for"' in texts(added)[0]
    assert '"for"' not in texts(known)[0]


def test_only_words_of_the_evidence_are_quoted() -> None:
    known = evidence(one_of("of", "and"), noise=0.5)
    written = " ".join("".join(e.tokens) for e in known.exemplars).lower()
    for text in texts(known):
        assert all(quoted.strip("-") in written for quoted in re.findall('"([^"]+)"', text.lower()))


def test_the_same_evidence_gives_the_same_candidates_and_at_most_those_asked_for() -> None:
    known = evidence(ends_in_ing)
    assert (
        texts(known) == texts(known) == [c.text for c in asyncio.run(StatisticsExplainer(None, 4).explain(known, 99))]
    )
    assert texts(known, 1) == texts(known)[:1]
    assert len(set(texts(known))) == len(texts(known)) > 1


def test_words_that_fire_equally_are_listed_in_the_order_of_the_evidence() -> None:
    tokens = [
        " a",
        " quick",
        " red",
        " fox",
        " ran",
        " to",
        " a",
        " cold",
        " dark",
        " red",
        " barn",
        " so",
        " quick",
    ] * 4
    firing = np.array([word in {" red", " quick"} for word in tokens], dtype=np.float32)
    forwards = Exemplar(0, "top", tokens, firing)
    backwards = Exemplar(1, "top", tokens[::-1], firing[::-1].copy())
    known = replace(evidence(one_of("of")), top_tokens=[])
    assert texts(replace(known, exemplars=[forwards]))[0] == 'the words "quick" and "red"'
    assert texts(replace(known, exemplars=[forwards, backwards]))[0] == 'the words "quick" and "red"'
    swapped = [{" red": " quick", " quick": " red"}.get(token, token) for token in tokens]
    assert texts(replace(known, exemplars=[replace(forwards, tokens=swapped)]))[0] == 'the words "red" and "quick"'
