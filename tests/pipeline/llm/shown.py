"""The way back from what a prompt shows to tokens, marks and values."""

import re
from collections.abc import Sequence

from stages.few_shot import CLOSE, OPEN

_UNIT = re.compile(r"\\(\\|t|n|r|empty|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})|([^\\])", re.DOTALL)
_PLAIN = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r", "empty": ""}


def read_units(shown: str) -> list[tuple[str, bool]]:
    """(character, whether it stands between marks) for each character of the text; an empty token has none."""
    units, marked, place = [], False, 0
    while place < len(shown):
        match = _UNIT.match(shown, place)
        assert match, f"a backslash without a code at {place} of {shown!r}"
        place = match.end()
        if match[2] in (OPEN, CLOSE):
            assert marked == (match[2] == CLOSE), f"marks out of order in {shown!r}"
            marked = not marked
        elif match[2]:
            units.append((match[2], marked))
        else:
            units.append((_character(match[1]), marked))
    assert not marked, f"an open mark in {shown!r}"
    return units


def read_token(shown: str) -> str:
    """The token that a line shows."""
    return _UNIT.sub(lambda match: match[2] or _character(match[1]), shown)


def _character(code: str) -> str:
    return _PLAIN[code] if code in _PLAIN else chr(int(code[1:], 16))


def read_marks(shown: str, tokens: Sequence[str]) -> list[bool]:
    """Which of the tokens a text shows as marked."""
    units = read_units(shown)
    empties = any(not character for character, _ in units)
    marks, place = [], 0
    for token in tokens:
        if not token and not empties:
            marks.append(False)
            continue
        part = units[place : place + max(len(token), 1)]
        assert "".join(character for character, _ in part) == token
        marks.append(part[-1][1])
        place += len(part)
    assert place == len(units)
    return marks


def read_lines(shown: str) -> list[tuple[str, int]]:
    """(token, value) of each line."""
    lines = [line.split("\t") for line in shown.removesuffix("\n").split("\n")]
    return [(read_token(token), int(value)) for token, value in lines]
