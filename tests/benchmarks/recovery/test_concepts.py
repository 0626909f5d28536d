"""The planted concepts are many, apart from each other, and can be hit by the words they are made of."""

from collections import Counter

import pytest

from tests.benchmarks.recovery.concepts import KINDS, Concept, load_concepts

CONCEPTS = load_concepts()
OVERLAPPING = {("commands", "instruction manual"), ("banking", "amounts of money"), ("amounts of money", "banking")}
"""Pairs of a pattern's concept and another concept whose keyword it matches."""


def test_there_are_at_least_sixty_over_all_kinds() -> None:
    kinds = Counter(concept.kind for concept in CONCEPTS)
    assert len(CONCEPTS) >= 60
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 12


def test_half_of_each_kind_is_held_out() -> None:
    for kind in KINDS:
        held_out = [concept.held_out for concept in CONCEPTS if concept.kind == kind]
        assert abs(sum(held_out) - len(held_out) / 2) <= 0.5


def test_names_and_keywords_are_unique() -> None:
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS)
    assert len({concept.keyword for concept in CONCEPTS}) == len(CONCEPTS)


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_a_corpus_has_twelve_to_twenty_sentences_of_its_own(concept: Concept) -> None:
    assert 12 <= len(concept.corpus) <= 20
    others = {sentence.lower() for other in CONCEPTS if other is not concept for sentence in other.corpus}
    assert not others & {sentence.lower() for sentence in concept.corpus}
    assert len(set(concept.corpus)) == len(concept.corpus)


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_a_pattern_matches_its_own_keyword_and_name_and_not_the_empty_text(concept: Concept) -> None:
    assert concept.matches(concept.keyword)
    assert concept.matches(concept.name.upper())
    assert not concept.matches("")


def test_patterns_do_not_match_the_keywords_of_others() -> None:
    found = {
        (concept.name, other.name)
        for concept in CONCEPTS
        for other in CONCEPTS
        if other is not concept and (concept.matches(other.keyword) or concept.matches(other.name))
    }
    assert found == OVERLAPPING


def test_a_pattern_matches_few_explanations_that_are_about_nothing_planted() -> None:
    unrelated = [
        "words that begin with a vowel", "short function words", "geology and minerals", "punctuation marks",
        "texts about mathematics", "chemical elements", "phrases with an article", "words for directions",
        "trees and wood", "sizes and distances", "adverbs of manner", "sleep and dreams",
    ]  # fmt: skip
    hits = [(concept.name, text) for concept in CONCEPTS for text in unrelated if concept.matches(text)]
    assert hits == []
