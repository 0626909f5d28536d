"""Where there is no terminal, progress is a plain line with the time now and then."""

import re

import pytest

from pipeline.execution import progress
from pipeline.execution.progress import ShardProgress, say

LINE = re.compile(r"^\d\d:\d\d:\d\d explain units: (\d) of 4 shards in 00:00(?:, 00:0\d left)?(, 3 requests)?$")


def test_a_file_gets_one_line_at_the_end_where_all_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    with ShardProgress("explain units", 4, 1) as shown:
        for _ in range(3):
            shown.step()
    printed = capsys.readouterr().err
    assert LINE.match(printed.strip())
    assert "\r" not in printed
    assert "\x1b" not in printed


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with ShardProgress("explain units", 4, 0) as shown:
        for _ in range(4):
            shown.step()
        shown.note("3 requests")
    lines = capsys.readouterr().err.strip().split("\n")
    found = [LINE.match(line) for line in lines]
    assert [match and (match[1], match[2]) for match in found] == [
        ("1", None), ("2", None), ("3", None), ("4", None), ("4", ", 3 requests"),
    ]  # fmt: skip


def test_nothing_is_shown_unless_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with ShardProgress("explain units", 4, 0, show=False) as shown:
        shown.step()
    assert capsys.readouterr().err == ""


def test_messages_have_the_time_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\ntwo")
    assert re.fullmatch(r"\d\d:\d\d:\d\d one\n\d\d:\d\d:\d\d two\n", capsys.readouterr().out)
