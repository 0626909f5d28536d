"""Tables are whole in files, fit a terminal, and pass nothing on that a terminal would obey."""

from pipeline.commands.query import format_table

LONG = "the words " + ", ".join(f'"word{number}"' for number in range(40))


def test_nothing_is_cut_where_there_is_no_terminal() -> None:
    assert LONG in format_table(["module", "text"], [["layers.4.mlp", LONG]])


def test_long_cells_are_wrapped_to_a_terminal_and_keep_every_word() -> None:
    lines = format_table(["module", "text"], [["layers.4.mlp", LONG]], width=80).split("\n")
    assert max(map(len, lines)) <= 80
    assert len(lines) > 5
    assert "".join(" ".join(lines[2:]).replace("layers.4.mlp", "").split()) == "".join(LONG.split())


def test_numbers_stand_to_the_right_and_null_is_a_dash() -> None:
    lines = format_table(["n", "r", "text"], [[1, 0.12345, "a"], [100, None, "b"]]).split("\n")
    assert [line.split() for line in lines] == [["n", "r", "text"], [lines[1]], ["1", "0.123", "a"], ["100", "-", "b"]]
    assert lines[2].index("1") == lines[3].index("100") + 2


def test_control_characters_and_marks_of_direction_are_written_out() -> None:
    printed = format_table(["text"], [["\x1b[31mred\x1b[0m \u202eabc\x00\n[bold]x[/bold]"]])
    assert "\x1b" not in printed
    assert "\\x1b[31mred\\x1b[0m \\u202eabc\\x00\\n[bold]x[/bold]" in printed


def test_a_table_without_rows_shows_its_columns() -> None:
    assert format_table(["module", "text"], []).split("\n")[0].split() == ["module", "text"]
