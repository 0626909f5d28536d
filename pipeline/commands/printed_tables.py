"""Rows as text for people: nothing is cut, and no control character reaches the terminal."""

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 100_000
"""Columns of text where output goes to a file."""


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """Rows under their column names, numbers to the right. Null is a dash.

    Args:
        width: columns of text to wrap long cells to; unless given the terminal's, and none where output is no terminal.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, name in enumerate(columns):
        numbers = all(isinstance(row[place], (int, float)) or row[place] is None for row in rows)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    out = io.StringIO()
    Console(file=out, width=width or _width(), color_system=None).print(table)
    return "\n".join(line.removeprefix(" ").rstrip() for line in out.getvalue().strip("\n").splitlines()).strip("\n")


def safe(text: str) -> str:
    """Text in which control characters, escape sequences and marks of direction are written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return safe(f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value))
