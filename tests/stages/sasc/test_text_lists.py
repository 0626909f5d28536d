"""The texts in replies as language models write them: however the list is marked, and whatever stands around it."""

import json

import pytest

from stages.sasc.text_lists import read_texts

TEXTS = [
    "In 1969, 3.5 million people watched it.",
    'She said "no" and paid 12.50. 3. Liga was on.',
    "A dog slept all day.",
]
MARKS = [
    "{}. ", "{}) ", "{}: ", "({}) ", "{} - ", "{}- ", "{}– ", "{}.", "{}.\t", "{}\\. ", "**{}.** ", "**{}**. ", "**{}** - ",
    "#{} ", "# {}. ", "### {}. ", "[{}] ", "> {}. ", "- {}. ", "* {}) ", "  {}.  ", "{}．", "{}、",
    "Text {}: ", "Text {}. ", "**Text {}:** ", "**Text {}**: ", "Example #{}: ", "Sentence {}: ",
]  # fmt: skip


def marked(mark: str, texts: list[str] = TEXTS, first: int = 1, between: str = "\n") -> str:
    return between.join(mark.format(number) + text for number, text in enumerate(texts, first))


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("between", ["\n", "\n\n", "\r\n"])
def test_items_are_told_by_their_numbers_however_these_are_marked(mark: str, between: str) -> None:
    assert read_texts(marked(mark, between=between), finished=True) == TEXTS


@pytest.mark.parametrize("mark", ["- ", "* ", "• ", "– ", "— ", "+ ", "· ", "  - ", ""])
def test_without_numbers_they_are_bullets_or_lines(mark: str) -> None:
    assert read_texts(marked(mark), finished=True) == TEXTS


def test_numbers_may_begin_with_0_and_have_two_digits() -> None:
    many = [f"There were {number} of them." for number in range(12)]
    assert read_texts(marked("{}. ", many, first=0), finished=True) == many
    assert read_texts(marked("{}. ", many), finished=True) == many


@pytest.mark.parametrize("lead", ["Sure, here are 3 texts that fit:\n\n", "3 texts:\n", "**Texts:**\n", "# Texts\n\n"])
@pytest.mark.parametrize("end", ["", "\n\nI hope these help!", "\nLet me know if you need more."])
def test_what_stands_before_and_behind_the_list_is_no_part_of_it(lead: str, end: str) -> None:
    assert read_texts(lead + marked("{}. ") + end, finished=True) == TEXTS


AROUND = [
    '"{}"', "“{}”", "'{}'", "*{}*", "**{}**", "_{}_", "`{}`", '"{}",', "Text: {}", "**A title:** {}", "**A title**: {}"
]  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
def test_quotes_stress_and_labels_around_a_text_are_taken_off(around: str) -> None:
    texts = ["A dog slept all day.", "The ship left, and nobody saw it."]
    for mark in ("{}. ", "- "):
        assert read_texts(marked(mark, [around.format(text) for text in texts]), finished=True) == texts


def test_quotes_within_a_text_stay() -> None:
    texts = ['"Come," she said, "it is late."', "'Tis the sea's fault", "The *old* ship sank."]
    assert read_texts(marked("{}. ", texts), finished=True) == texts


def test_items_of_several_lines_are_one_text_and_notes_below_them_are_not() -> None:
    reply = '1. "Where are you?" she asked.\n"Here," he said.\n2. The ship\nleft in\n1969. A good year.\n   - about ships\n3. Bread.\n\nBye'
    wanted = ['"Where are you?" she asked. "Here," he said.', "The ship left in 1969. A good year.", "Bread."]
    assert read_texts(reply, finished=True) == wanted


def test_paragraphs_without_marks_are_texts() -> None:
    reply = "The ship\nleft the port.\n\nA dog slept\nall day.\n\nThe sea was calm."
    assert read_texts(reply, finished=True) == ["The ship left the port.", "A dog slept all day.", "The sea was calm."]


def test_a_single_line_is_no_list_but_a_text_where_one_was_wanted() -> None:
    for reply in ("I would rather write about something else today.", "1. A dog slept all day."):
        assert read_texts(reply, finished=True, wanted=1) == [reply.removeprefix("1. ")]
    assert read_texts("I would rather write about something else today.", finished=True, wanted=5) == []
    assert read_texts("", finished=True) == []


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps({"texts": TEXTS}),
        json.dumps({"texts": TEXTS}, indent=2),
        json.dumps(TEXTS),
        json.dumps({"sentences": TEXTS}),
        json.dumps({"texts": [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]}),
        json.dumps([{"text": text, "topic": "any"} for text in TEXTS]),
        json.dumps({str(number): text for number, text in enumerate(TEXTS)}),
        json.dumps({"texts": [f"{number}. {text}" for number, text in enumerate(TEXTS, 1)]}),
        "\n".join(json.dumps({"text": text}) for text in TEXTS),
        f"Sure!\n```json\n{json.dumps({'texts': TEXTS})}\n```\nI hope it helps.",
        f'The form is {{"texts": ["...", "..."]}}:\n{json.dumps({"texts": TEXTS})}',
        f"<think>1. One\n2. Two [ </think>{json.dumps({'texts': TEXTS})}",
        json.dumps({"texts": TEXTS}).replace("]", ",]"),
        json.dumps({"texts": TEXTS}).replace('\\"', '"'),
    ],
)  # fmt: skip
def test_json_is_read_in_all_its_forms_and_where_it_is_broken(reply: str) -> None:
    assert read_texts(reply, finished=True) == TEXTS


@pytest.mark.parametrize(
    "reply", [marked("{}. "), marked("- "), marked(""), json.dumps({"texts": TEXTS}, ensure_ascii=False)]
)
def test_of_a_reply_that_was_cut_anywhere_whole_texts_alone_are_left(reply: str) -> None:
    for stop in range(len(reply) - 2):
        found = read_texts(reply[:stop], finished=False)
        assert found == TEXTS[: len(found)], reply[:stop]
    assert len(read_texts(reply[: len(reply) - 3], finished=False)) == 2


def test_thoughts_are_no_texts() -> None:
    for thought in ("<think>1. Something\n2. about it</think>", "I plan\n1. foo\n2. bar\n</think>\n"):
        assert read_texts(thought + marked("{}. "), finished=True) == TEXTS
    assert read_texts("<think>1. Something\n2. about it", finished=False) == []


def test_brackets_in_prose_are_no_json() -> None:
    reply = 'He said [ "quoted" ] in the hall.\nA dog slept all day.'
    assert read_texts(reply, finished=True) == ['He said [ "quoted" ] in the hall.', "A dog slept all day."]


LETTERS = ["{}) ", "{}. ", "({}) ", "**{}.** ", "**{})** ", "- {}) ", "  {}.  "]


@pytest.mark.parametrize("mark", LETTERS)
@pytest.mark.parametrize("first", ["a", "A"])
@pytest.mark.parametrize("between", ["\n", "\n\n", "\r\n"])
def test_items_are_told_by_their_letters(mark: str, first: str, between: str) -> None:
    reply = between.join(mark.format(chr(ord(first) + place)) + text for place, text in enumerate(TEXTS))
    assert read_texts(reply, finished=True) == TEXTS
    assert read_texts(f"Here are 3 texts:\n\n{reply}\n\nI hope these help!", finished=True) == TEXTS
    assert read_texts(reply, finished=False) == TEXTS[:2]


def test_letters_within_json_are_taken_off() -> None:
    strings = [f"{letter}) {text}" for letter, text in zip("abc", TEXTS, strict=True)]
    assert read_texts(json.dumps({"texts": strings}), finished=True) == TEXTS


@pytest.mark.parametrize(
    "lines",
    [
        ["A dog slept.", "B flat is a key.", "C. is a letter."],
        ["A. Miller came first.", "Nobody else ran.", "B. Jones was ill."],
        ["A. Miller came first.", "C. Jones was ill."],
        ["A: Where are you?", "B: Here, by the sea."],
        ["The vote was tied.", "B. Jones was ill."],
        ["a) is the first answer.", "It was wrong."],
    ],
)
def test_letters_that_begin_lines_of_their_own_are_no_marks(lines: list[str]) -> None:
    assert read_texts("\n".join(lines), finished=True) == lines


@pytest.mark.parametrize("mark", ["{}. ", "{}) ", "({}) "])
@pytest.mark.parametrize(
    "texts", [["foo", "bar", "baz"], ["In 1969, 3.5 million saw it.", "He paid 12.50!", "A 4 x 4 broke."]]
)
def test_a_list_within_one_line_is_split_where_all_its_numbers_are_there(mark: str, texts: list[str]) -> None:
    line = marked(mark, texts, between=" ")
    assert read_texts(line, finished=True, wanted=3) == texts
    assert read_texts(f"Sure, here are 3 texts:\n{line}\n\nI hope these help!", finished=True, wanted=3) == texts
    assert read_texts(line, finished=False, wanted=3) == texts[:2]


def test_a_line_of_sentences_between_semicolons_is_split() -> None:
    assert read_texts("A dog slept.; Who came?; “He left.”", finished=True, wanted=3) == [
        "A dog slept.",
        "Who came?",
        "He left.",
    ]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("1. He lived at no. 2. She lived elsewhere.", 2),
        ("1. He came 2. in the race and 3. in the final.", 10),
        ("1. The 3. Liga began. 2. They won. 3. It rained.", 3),
        ("1. One was here. 2. Two was here. 3. The 4. Liga was here.", 3),
        ("1. He came 3. and she came 2. in May.", 3),
        ("1. It cost 2.50 and not 3.50 or 4.20.", 3),
        ("1. See (2) and (3) below.", 3),
        ("1) Both 2. and 3. were late.", 3),
    ],
)
def test_numbers_within_a_text_split_nothing(line: str, wanted: int) -> None:
    whole = line[2:].strip()
    assert read_texts(line, finished=True, wanted=wanted) == [whole]
    assert read_texts(f"{line}\n2. A dog slept.\n3. The sea was calm.", finished=True, wanted=3)[0] == whole


@pytest.mark.parametrize(
    "line", ["It rained; we left; all was well.", "He came.; She left.", "It rained; He left.; She left.", "a; b; c"]
)
def test_semicolons_within_a_text_split_nothing(line: str) -> None:
    assert read_texts(line, finished=True, wanted=3) == []
    assert read_texts(line, finished=True, wanted=1) == [line]
    assert read_texts(f"1. {line}\n2. A dog slept.", finished=True) == [line, "A dog slept."]


def test_half_of_an_escaped_pair_becomes_text_that_a_table_can_hold() -> None:
    reply = r'{"texts": ["A \ud83d dog slept.", "It was \ud83d\ude00 late."]}'
    assert read_texts(reply, finished=True) == ["A \ufffd dog slept.", "It was \N{GRINNING FACE} late."]
