"""No text from a corpus, a model or a server makes a terminal do anything."""

from pathlib import Path

import pytest
import typer

from pipeline.__main__ import main
from pipeline.execution.progress import say
from pipeline.terminal_text import safe, safe_lines
from stages.simulate.attempt import show_text
from tests.pipeline.report.made_up_run import write_run

EVIL = "\x1b]0;title\x07 \x9b31m red \u202e reversed \r over"


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal would obey."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def test_what_a_terminal_obeys_is_written_out_and_layout_stays() -> None:
    assert safe("a\n\tb") == "a\\n\\tb"
    assert safe_lines("a\n\tb") == "a\n\tb"
    assert safe_lines(f"é {EVIL}\n") == "é \\x1b]0;title\\x07 \\x9b31m red \\u202e reversed \\r over\n"
    assert obeyed(safe_lines("".join(map(chr, range(0x3000))))) == []


def test_messages_of_a_run_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"explain part-00000 failed: the endpoint says: {EVIL}")
    out = capsys.readouterr().out
    assert "the endpoint says: \\x1b]0;title" in out
    assert obeyed(out) == []


def test_errors_are_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", 4)
    monkeypatch.setattr("sys.argv", ["neurogloss", "query", "--run", str(run), f"SELECT '{EVIL}' FROM nothing"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "nothing does not exist" in error
    assert obeyed(error) == []


def test_so_is_a_text_that_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    typer.echo(show_text("word", "none", "colours", f"red {EVIL}", color=False))
    assert obeyed(capsys.readouterr().out) == []
