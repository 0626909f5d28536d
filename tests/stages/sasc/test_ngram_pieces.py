"""What n-grams are made of: words, numbers and marks as they stand, or tokens; never across a document's end."""

from collections.abc import Sequence

import pytest

from pipeline.corpora.windows import Document
from stages.sasc.ngram_pieces import (
    Ngram,
    forms_of_tokens,
    forms_of_words,
    read_tokens,
    read_words,
    word_forms,
    word_spans,
)

LETTERS = "abcdefgh"


def joined(ids: Sequence[int]) -> str:
    """Tokens are letters, 8 is a blank, 9 a part of a character."""
    return "".join([*LETTERS, " ", "\ufffd"][token] for token in ids)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Don't go!", ["Don't", "go", "!"]),
        ("O’Neil's well-known 1,969.5 km.", ["O’Neil's", "well-known", "1,969.5", "km", "."]),
        ("the U.S. -- (été)", ["the", "U", ".", "S", ".", "-", "-", "(", "été", ")"]),
        ("日本語です, ok", ["日", "本", "語", "で", "す", ",", "ok"]),
        ("🎉🎉 e\u0301te\u0301 x2", ["🎉", "🎉", "e\u0301te\u0301", "x", "2"]),
        ("\n \t", []),
        ("a\x1fb", ["a", "b"]),
    ],
)
def test_words_numbers_and_marks(text: str, pieces: list[str]) -> None:
    assert [text[start:stop] for start, stop in word_spans(text)] == pieces


def test_an_ngram_is_as_it_stands_in_the_text_with_one_space_for_any_white_space() -> None:
    found = [read_words(form).text for form, *_ in word_forms("No,  she\ndidn't (ever).", [1, 3])]
    assert found == [
        "No", ",", "she", "didn't", "(", "ever", ")", ".",
        "No, she", ", she didn't", "she didn't (", "didn't (ever", "(ever)", "ever).",
    ]  # fmt: skip


def test_case_and_white_space_make_no_other_ngram_but_other_words_do() -> None:
    keys = [read_words(next(word_forms(text, [2]))[0]).key for text in ("The sea", "the\n\nSEA", "the sea", "these a")]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_ngrams_do_not_cross_the_end_of_a_document_but_that_of_a_piece() -> None:
    documents = [Document("a", "one two "), Document("a", "three. ", continues=True), Document("b", "four five")]
    found = [[read_words(form).text for form in forms] for forms in forms_of_words(documents, [1, 2, 3])]
    assert sorted(found[0]) == ["one", "one two", "two"]
    assert sorted(found[1]) == [".", "one two three", "three", "three.", "two three", "two three."]
    assert sorted(found[2]) == ["five", "four", "four five"]


def test_tokens_keep_their_case_and_their_spaces() -> None:
    documents = [(Document("a", ""), [0, 8, 1]), (Document("a", "", continues=True), [2, 9]), (Document("b", ""), [3])]
    found = [[read_tokens(form) for form in forms] for forms in forms_of_tokens(documents, joined, [1, 2])]
    assert found[0] == [Ngram("a", "a", 1), Ngram("b", "b", 1), Ngram("a ", "a ", 2), Ngram(" b", " b", 2)]
    assert found[1] == [Ngram("c", "c", 1), Ngram("bc", "bc", 2)], "parts of characters are no text"
    assert found[2] == [Ngram("d", "d", 1)]


def test_a_form_says_where_its_ngram_stands() -> None:
    assert [span for _, *span in word_forms("a b c d", [2])] == [[0, 2], [1, 3], [2, 4]]
