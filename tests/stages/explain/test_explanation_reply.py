"""The explanation in a reply: found in JSON, prose and fences, whole or cut, and never in what is none."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.engine import Completion
from pipeline.prompts import Prompt
from stages.explain.explanation_reply import LEAST_LETTERS, LONGEST, LONGEST_REPLY, read_explanation
from tests.stages.explain.prompts import PROMPTS
from tests.tiers import examples

INSTRUCTION = Prompt("explain/max_activation.v1").part("system", as_json=False, notes=())


def read(text: str, *, finished: bool = True) -> str:
    return read_explanation(Completion(text, 1, 1, finished), INSTRUCTION).text


@pytest.mark.parametrize(
    "reply",
    [
        "words about music",
        " words about\nmusic \n",
        '"words about music"',
        "“words about music”",
        "**words about music**",
        "- words about music",
        '{"explanation": "words about music"}',
        '{ "Explanation" : "words about music" }',
        '```json\n{"explanation": "words about music"}\n```',
        'Sure, here it is:\n{"explanation": "words about music"}\nI hope that [this] {helps}.',
        '{"explanation": "a first guess"} No. {"explanation": "words about music"}',
        '{"reason": {"tokens": ["song"]}, "explanation": "words about music"}',
        '{"neurons": 1} and then\nExplanation: words about music',
        "{'explanation': 'words about music'}",
        '{"explanation": "words about music',
        "Explanation: words about music",
        "Explanation of neuron 4: words about music",
        "**Explanation:** words about music",
        "[EXPLANATION]: words about music",
        "My final explanation is: words about music",
        "The tokens are [song, tune].\n\nExplanation: words\n\n### Explanation\n\n[EXPLANATION]: words about music",
        "Explanation: the tokens\n\nExplanation:\nwords about music\n\nThis covers all ten texts.",
        "Looking at the marked tokens:\n\nwords about music\n\nThey stand in reviews.",
        "words about music\n\nThey stand in reviews.",
        "```\nwords about music\n```",
        '<think>Perhaps {"explanation": "songs"}?\n\nYes.</think>\n\nwords about music',
    ],
)
def test_one_explanation_in_many_wrappings(reply: str) -> None:
    assert read(reply) == "words about music"


@pytest.mark.parametrize(
    "text",
    [
        "words about music: songs, tunes",
        'the words "song" and "tune"',
        "[ and other opening brackets",
        "{ in code",
        "numbers such as 3. 5 and the like.",
        "unclear; perhaps words about music",
        '"I cannot" and "I\'m sorry", as in refusals',
        "an explanation of how something works, as in manuals",
        "I, you and other pronouns",
    ],
)
def test_an_explanation_that_looks_like_something_else_is_kept_as_it_is(text: str) -> None:
    assert read(text) == text
    assert read(json.dumps({"explanation": text})) == text


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "...",
        "10 3",
        "{}",
        '{"explanation": ""}',
        '{"explanation": "..."}',
        '{"explanation": ["songs"]}',
        '{"answer": "words about music"}',
        " song\t10\n tune\t8",
        "Explanation:",
        "I'm sorry, but I cannot help with that.",
        "I cannot determine what the marked tokens have in common.",
        "I am unable to identify a pattern.",
        '{"explanation": "As an AI language model, I do not know."}',
        "Look at the marked tokens and at what stands before and around them.",
        "Name what the marked tokens have in common",
        "say in one sentence what the neuron looks for",
        "<think>The tokens are about music",
        "<start> song",
        "x" * (LONGEST + 1),
    ],
)
def test_what_is_no_explanation(reply: str) -> None:
    assert read(reply) == ""


def test_a_reply_that_was_cut_ends_with_its_last_full_sentence_if_it_has_one() -> None:
    for text in ("words about music. They often", '{"explanation": "words about music. They often'):
        assert read(text, finished=False) == "words about music."
    assert read('{"explanation": "words about mus', finished=False) == "words about mus"
    assert read('{"explanation": "words \\"song\\" and \\u00', finished=False) == 'words "song" and'


@pytest.mark.parametrize("prompt_id", PROMPTS)
@pytest.mark.parametrize("as_json", [True, False])
def test_every_sentence_of_an_instruction_is_an_echo(prompt_id: str, as_json: bool) -> None:
    text = Prompt(prompt_id).part("system", as_json=as_json, notes=("pairs", "needs", "promoted"))
    for sentence in text.replace("\n", " ").split(". "):
        if sentence.count(" ") >= 5:
            assert read_explanation(Completion(sentence, 1, 1, True), text).text == ""


WORDS = st.text("abcdefgh ,'()\"\\é日{}[]<>:#*", min_size=1, max_size=60)


@settings(max_examples=examples(1500))
@given(text=WORDS, before=st.sampled_from(["", "Sure:\n", "```json\n", "{x} [1] "]), ascii_only=st.booleans())
def test_any_words_survive_as_json(text: str, before: str, ascii_only: bool) -> None:
    expected = " ".join(text.split())
    found = read(before + json.dumps({"explanation": text}, ensure_ascii=ascii_only) + "\n```")
    if sum(map(str.isalpha, expected)) < LEAST_LETTERS:
        assert found == ""
    else:
        assert found in expected
        assert set(expected.replace(found, "", 1)) <= set("\"'*- ")


@settings(max_examples=examples(1500))
@given(text=st.text(st.sampled_from('{}[]":,\\ \n\tabcexplanation`*<think>/'), max_size=80), finished=st.booleans())
def test_any_reply_is_read_without_an_error_into_one_line(text: str, finished: bool) -> None:
    found = read(text, finished=finished)
    assert found == " ".join(found.split())
    assert len(found) <= LONGEST


@pytest.mark.parametrize("piece", ['{"a":', "{", "<think>", '"explanation": "', "Explanation: ", " \n", "`"])
def test_a_reply_that_ran_astray_is_no_explanation(piece: str) -> None:
    assert read((piece * LONGEST_REPLY)[:LONGEST_REPLY], finished=False) == ""
    assert read(piece * LONGEST_REPLY + "words") == ("words" if piece == " \n" else "")


@pytest.mark.parametrize("half", ["\\ud83d", "\\uDE00"])
@pytest.mark.parametrize("end", ['"}', ""], ids=["whole", "cut"])
def test_half_of_an_escaped_pair_becomes_text_that_a_table_can_hold(half: str, end: str) -> None:
    found = read('{"explanation": "words about ' + half + " music" + end)
    assert found == "words about \ufffd music"
    assert read('{"explanation": "words about \\ud83d\\ude00"}') == "words about \N{GRINNING FACE}"
