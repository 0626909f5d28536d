"""Which texts can be used."""

import pytest

from pipeline.prompts import Prompt
from stages.sasc.text_lists import is_text, leaks, usable

EXPLANATION = 'ships at sea in the evening, or the phrase "at the end of the day"'
REQUEST = "\n".join(
    Prompt("sasc/relevant.v1").render(part=part, explanation=EXPLANATION, count=10, as_json=True)
    for part in ("system", "request")
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One two",
        "1 2 3 4 5",
        "#### --- ||| ***",
        "word " * 200,
        '{"texts": ["Two more words',
        "| 1 | The fox ran home. |",
        "<li>The fox ran home.</li>",
    ],
)
def test_what_is_no_text_is_left_out(text: str) -> None:
    assert not is_text(text)


@pytest.mark.parametrize(
    "text", ["日本語の文章を書きます。", "नमस्ते दुनिया, कैसे हो?", "Ça va très bien, été!", "In 1969 he left."]
)
def test_texts_of_any_script_are_texts(text: str) -> None:
    assert is_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here are 10 texts that fit the description:",
        "Certainly! Below are ten diverse passages:",
        "Here's a list of 10 texts.",
        "The following texts all relate to ships.",
        "Each of these sentences is about ships.",
        "None of these examples is about ships.",
        "Note: all texts are about ships.",
        "Let me know if you need more.",
        "Please feel free to ask for further examples.",
        "I hope these examples help!",
        "I cannot fulfill this request.",
        "I'm sorry, but I can't assist with that.",
        "As a language model, I cannot write such texts.",
        "This one fits the description because it mentions a ship.",
        "They differ as much as possible from the others.",
        "Every one must plainly be an example of the description.",
        "It is about ships at sea in the evening.",
    ],
)
def test_what_is_about_the_request_is_left_out(text: str) -> None:
    assert leaks(text, REQUEST)


@pytest.mark.parametrize(
    "text",
    [
        "Here are the ships that came home from the war.",
        "The ships at sea were late.",
        "Sure enough, the train was late again.",
        "Of course she knew what he had done.",
        "I hope you are well and that the sea is calm.",
        "Let me tell you about the match on Sunday.",
        "I can't believe it is raining again.",
        "I am sorry to hear about your loss.",
        "Note that the museum is closed on Mondays.",
        "Each of the players got a medal.",
        "The following morning they left.",
        "At the end of the day they went home.",
    ],
)
def test_what_only_sounds_like_it_is_a_text(text: str) -> None:
    assert not leaks(text, REQUEST)


def test_a_text_is_used_once_in_both_kinds_together() -> None:
    assert usable(["The ship sailed.", "the ship sailed", "A dog barked loudly."], ["A dog barked, loudly!"]) == [
        "The ship sailed."
    ]
