"""Words as ranges of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.english.text import Word, split_words

PIECES = st.sampled_from(
    ["a", " the", "'", "'s", "’", "n", " ", "\n", "", ".", '."', " 1", "9", ",", "\ufffd", "日", "-", "é", "\t", "_x"]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=40))
def test_every_token_belongs_to_exactly_one_word(tokens: list[str]) -> None:
    words = split_words(tokens)
    assert [i for word in words for i in range(word.start, word.stop)] == list(range(len(tokens)))
    for word in words:
        assert word.text in "".join(tokens[word.start : word.stop])
        assert word.text == word.text.strip() or word.text == "\n"


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["Phil", "adel", "phia", " is"], ["Philadelphia", "is"]),
        ([" 1", "9", "9", "8", ",", " and"], ["1998", ",", "and"]),
        ([" 1", ",", "0", "0", "0", " men"], ["1,000", "men"]),
        ([" 3", ".", " 5", ".", "2", "."], ["3", ".", "5.2", "."]),
        ([" the", " ", "1", "9", "9", "0", "s"], ["the", "", "1990s"]),
        ([" well", "-", "known"], ["well", "-", "known"]),
        ([" don", "'t", " Ann", "'s", " they", "’", "re"], ["don't", "Ann", "'s", "they", "’re"]),
        ([" Ann", " '", "s", " O", "'", "Brien"], ["Ann", "'s", "O'Brien"]),
        ([" U", ".", "S", ".", " army", "."], ["U.S.", "army", "."]),
        (["x", ".get", "Name", "()"], ["x", "getName", "()"]),
        (["end", '."', "\n", "\n", "New", ",\n", "line"], ["end", '."', "\n", "New", ",", "line"]),
        ([" caf", "\ufffd", "\ufffd", " a", "", "b"], ["caf\ufffd\ufffd", "ab"]),
        (["日", "本", " ok"], ["日", "本", "ok"]),
        ([" 'a", "b", "' "], ["ab", "'"]),
        ([], []),
    ],
)
def test_words_of_a_text(tokens: list[str], words: list[str]) -> None:
    assert [word.text for word in split_words(tokens)] == words


def test_the_tokens_of_a_character_are_of_one_word() -> None:
    assert split_words(["日", "", "", "本", "", " é", "", ""]) == [Word("日", 0, 1), Word("本", 1, 4), Word("é", 4, 8)]
    assert split_words(["", " a"]) == [Word("", 0, 1), Word("a", 1, 2)], "the token that opens a text has no word"


def test_a_word_knows_its_tokens() -> None:
    assert split_words([" un", "happy", "!"]) == [Word("unhappy", 0, 2), Word("!", 2, 3)]
