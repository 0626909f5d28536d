"""Lists of texts in replies, and which texts can be used."""

import pytest

from stages.sasc.lists import read_texts
from stages.sasc.texts import is_text, leaks, usable

TWO = ["In 1969, 3.5 million people watched it.", "She paid 12.50 for it. 3. Liga was on."]


@pytest.mark.parametrize(
    "reply",
    [
        '{"texts": ["In 1969, 3.5 million people watched it.", "She paid 12.50 for it. 3. Liga was on."]}',
        '```json\n["In 1969, 3.5 million people watched it.", "She paid 12.50 for it. 3. Liga was on."]\n```',
        "1. In 1969, 3.5 million people watched it.\n2. She paid 12.50 for it. 3. Liga was on.",
        "Here are the texts:\n\n1) In 1969, 3.5 million people watched it.\n\n2) She paid 12.50 for it. 3. Liga was on.\n\nBye!",
        '- "In 1969, 3.5 million people watched it."\n- "She paid 12.50 for it. 3. Liga was on."',
        "In 1969, 3.5 million people watched it.\nShe paid 12.50 for it. 3. Liga was on.",
        "<think>1. Something\n2. about it</think>1. In 1969, 3.5 million people watched it.\n2. She paid 12.50 for it. 3. Liga was on.",
    ],
)
def test_numbers_inside_texts_do_not_split_them(reply: str) -> None:
    assert read_texts(reply, finished=True) == TWO


def test_a_number_at_the_start_of_a_line_is_an_item_only_in_its_turn() -> None:
    reply = "1. They were born in\n1969. A good year.\n2. The second one."
    assert read_texts(reply, finished=True) == ["They were born in 1969. A good year.", "The second one."]


def test_a_reply_that_was_cut_keeps_its_whole_texts() -> None:
    assert read_texts("1. The first one.\n2. The second one.\n3. The thi", finished=False) == [
        "The first one.",
        "The second one.",
    ]
    assert read_texts('{"texts": ["The first one.", "The second one.", "The thi', finished=False) == [
        "The first one.",
        "The second one.",
    ]


@pytest.mark.parametrize("text", ["", "One two", "1 2 3 4 5", "#### --- ||| ***", "word " * 200])
def test_what_is_no_text_is_left_out(text: str) -> None:
    assert not is_text(text)


def test_texts_that_repeat_the_request_are_left_out() -> None:
    request = "Write 10 texts that differ as much as possible from one another: ships at sea"
    assert leaks("Here are ten texts about ships at sea:", request)
    assert leaks("These texts differ as much as possible from the others.", request)
    assert not leaks("Here are the ships that came home from the war.", request)
    assert not leaks("The ships at sea were late.", request)


def test_a_text_is_used_once_in_both_kinds_together() -> None:
    assert usable(["The ship sailed.", "the ship sailed", "A dog barked loudly."], ["A dog barked, loudly!"]) == [
        "The ship sailed."
    ]
