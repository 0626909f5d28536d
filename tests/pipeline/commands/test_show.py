"""Exemplars on a terminal: the peak in one column, numbers over their tokens, no line too wide, nothing that a terminal obeys."""

import io
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pipeline.commands.show import MARGIN, exemplar_lines
from pipeline.results.shown_sequence import shown_sequence
from tests.tiers import examples

TOKENS = ["The", " red", " house", " and", " a", " green", " door", "."]
TRUE = [0.0, 9.0, 0.0, 0.0, 0.0, 10.0, 1.0, -3.0]
EXPECTED = [0.0, 8.0, 1.0, 0.0, 0.0, 10.0, 0.0, 0.0]


def lines(width: int, peak: int = 5, expected: list[float] | None = EXPECTED) -> list[str]:
    return [line.plain for line in exemplar_lines(shown_sequence(TOKENS, TRUE, expected, peak, 10.0, "+"), width)]


def test_numbers_stand_over_the_letters_of_their_tokens() -> None:
    true, words, simulated = lines(120)
    assert words.strip() == "".join(TOKENS)
    for line, values in ((true, TRUE), (simulated, EXPECTED)):
        for token, value in zip(TOKENS, values, strict=True):
            if value:
                place = words.index(token) + len(token) - len(token.lstrip())
                assert re.match(rf"{value:.0f}( |$)", line[place:]), (token, line)
    assert true.startswith("true")
    assert simulated.startswith("simulated")


def test_the_peak_begins_in_one_column_whatever_stands_before_it() -> None:
    places = {lines(60, peak)[1].index(TOKENS[peak]) for peak in (1, 3, 5)}
    assert places == {MARGIN + (60 - MARGIN) // 2}


def test_without_a_simulation_there_is_no_line_for_it() -> None:
    assert len(lines(80, expected=None)) == 2


@settings(max_examples=examples(200))
@given(
    st.lists(st.text(max_size=100), min_size=1, max_size=40),
    st.integers(40, 200),
    st.lists(st.floats(-20, 20), min_size=40, max_size=40),
    st.data(),
)
def test_no_line_is_wider_than_the_terminal_and_none_has_a_control_character(
    tokens: list[str], width: int, values: list[float], data: st.DataObject
) -> None:
    peak = data.draw(st.integers(0, len(tokens) - 1))
    shown = shown_sequence(tokens, values, values[::-1], peak, 10.0, "+")
    for line in exemplar_lines(shown, width):
        assert line.plain.isprintable()
        assert cell_len(line.plain) <= max(width, MARGIN + width // 2 + cell_len(shown[peak].text) + 8)


def test_colours_are_those_of_true_above_and_simulated_below() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=120, no_color=False)
    for line in exemplar_lines(shown_sequence(TOKENS, TRUE, EXPECTED, 5, 10.0, "+"), 120):
        console.print(line, soft_wrap=True)
    assert "\x1b[1;4;30;48;2;240;174;102m green" in out.getvalue()
    assert out.getvalue().count("48;2;240;174;102") == 2
