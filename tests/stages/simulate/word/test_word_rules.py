"""Which tokens fire for what an explanation says of form and position."""

import asyncio
import re

import pytest

from stages.simulate.word.word_simulator import Meaning, WordSimulator


def tokens_of(text: str) -> list[str]:
    """Words with the space before them, as a byte-pair tokenizer writes them; "|" cuts a word into pieces."""
    return [piece for token in re.findall(r" ?[\w|'’]+| ?[^\w\s]|\n", text) for piece in token.split("|")]


def firing(simulator: WordSimulator, explanation: str, text: str) -> list[str]:
    tokens = tokens_of(text)
    (simulation,) = asyncio.run(simulator.simulate(explanation, [tokens]))
    assert simulation.expected is not None
    return [token.strip(" ") for token, value in zip(tokens, simulation.expected, strict=True) if value >= 4.9]


CASES = [
    ('the word "of"', "of often the Of", ["of", "Of"]),
    ('the word "May"', "may he come in May", ["May"]),
    ('the words "New York"', "new York and New York", ["New", "York"]),
    ('the word "don\'t"', "We don|'t know", ["don", "'t"]),
    ('the word "\'s"', "Ann|'s dog is his", ["'s"]),
    ('the word piece "tion"', "na|tion and mo|tion", ["tion", "tion"]),
    ('tokens " un"', "un un|do run", ["un"]),
    ('words ending in "-tion"', "The na|tion in motion", ["tion", "motion"]),
    ('words beginning with "un-"', "un|happy sun unlike", ["un", "unlike"]),
    ('words containing "graph"', "a photographic graph", ["photographic", "graph"]),
    ('words right after "of"', "the end of all things of it", ["all", "it"]),
    ('words right before "of"', "the end of all parts of it", ["end", "parts"]),
    ("words after a comma", "red, blue and green, too", ["blue", "too"]),
    ("words before commas", "red, blue and green, too", ["red", "green"]),
    ('numbers after "in"', "in 1990 and 1991 in two", ["1990", "two"]),
    ("words inside parentheses", "He (born here) was (or is", ["born", "here", "or", "is"]),
    ("words inside parentheses", "born here) he was", ["born", "here"]),
    ("words in quotation marks", 'He said "go away" to me', ["go", "away"]),
    ("words in quotes", "He said “go away” to me", ["go", "away"]),
    ("the first word of a sentence", "he went. She saw Dr. Smith. We ran", ["She", "We"]),
    ("the last word of a sentence", "he went. She saw Dr. Smith. We ran", ["went", "Smith"]),
    ("the end of a sentence", "he went. We ran", ["."]),
    ("the first word of a line", "he went\nthere so\nhe", ["he", "there", "he"]),
    ("the start of a text", "once upon a time", ["once"]),
    ("numbers", "In 1 9 9 two men, 3.5 of them", ["1", "9", "9", "two", "3", ".", "5"]),
    ("years", "in 1998 and 350 men", ["1998"]),
    ("dates", "on 4 July 1776 he had 4 men", ["4", "July", "1776"]),
    ("months", "In May he may march to June", ["May", "June"]),
    ("days of the week", "on Monday in May", ["Monday"]),
    ("ordinals", "the first and the 3rd man", ["first", "3rd"]),
    ("Roman numerals", "Henry VIII and I", ["VIII"]),
    ("proper names", "The town. The river Seine near Paris is long", ["Seine", "Paris"]),
    ("capitalised words", "The river Seine", ["The", "Seine"]),
    ("acronyms", "The NATO and Nato in a USA", ["NATO", "USA"]),
    ("punctuation", "Yes, he (it) said.", [",", "(", ")", "."]),
    ("commas", "Yes, he said; so.", [","]),
    ("opening parentheses", "Yes (he)", ["("]),
    ("hyphens", "well-known ways", ["-"]),
    ("line breaks", "one\ntwo", ["\n"]),
    ("past-tense verbs", "He walked and saw a red seed he had hated", ["walked", "saw", "had", "hated"]),
    ("-ing verbs", "The king is singing and running", ["singing", "running"]),
    ("plurals", "the boys of this city have ponies and boxes", ["boys", "ponies", "boxes"]),
    ("comparatives", "bigger water and a better number", ["bigger", "better"]),
    ("adverbs", "he quickly saw the family", ["quickly"]),
    ("hyphenated words", "a well-known man - he", ["well", "-", "known"]),
    ("contractions", "he don't know", ["don't"]),
    ("repeated words", "the dog saw the other dog", ["dog"]),
    ("references to numbers", "it has two", ["two"]),
    ('the word "the" followed by a noun', "the big dog of the dogs", ["the"]),
    ("negation", "he did not, never, ever", ["not", "never"]),
    ("pronouns", "he saw them and the dog", ["he", "them"]),
    ("question words", "who saw what dog", ["who", "what"]),
    ("modal verbs", "he must and can go", ["must", "can"]),
    ("units of measure", "five km or two miles away", ["km", "miles"]),
    ("the last token of words ending in -ing", "sing|ing well", ["ing"]),
    ("the first token of capitalised words", "Phil|adel|phia is", ["Phil"]),
    ('numbers, but not "two"', "one two three", ["one", "three"]),
    ("anything except numbers", "one red, two", ["red", ","]),
    ('words not ending in "-ing"', "red singing", ["red"]),
]


@pytest.mark.parametrize(("explanation", "text", "expected"), CASES)
def test_rules_fire_on(by_embedding: WordSimulator, explanation: str, text: str, expected: list[str]) -> None:
    assert firing(by_embedding, explanation, text) == expected


def test_rules_without_meaning_ask_no_model(by_embedding: WordSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked for meaning")

    monkeypatch.setattr(Meaning, "values", refuse)
    assert firing(by_embedding, 'the words "of" and "in"; numbers; words right after "the"', "of the men in 1990") == [
        "of", "men", "in", "1990",
    ]  # fmt: skip


def test_a_weaker_clause_gives_lower_values(by_embedding: WordSimulator) -> None:
    (simulation,) = asyncio.run(
        by_embedding.simulate('the word "red"; and weakly the word "blue"', [["red", " blue", " green"]])
    )
    assert simulation.expected is not None
    red, blue, green = simulation.expected
    assert red == 10.0
    assert 0 < blue < 6
    assert green == 0
