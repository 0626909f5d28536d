"""Two runs, table by table and row by row."""

from pathlib import Path

from stages import TABLES
from tests.integration.reduced import all_rows


def differing(wanted: Path, found: Path) -> dict[str, str]:
    """The tables of two runs whose rows differ, with their numbers of rows."""
    ours, theirs = all_rows(wanted), all_rows(found)
    return {
        name: f"{ours[name].num_rows} and {theirs[name].num_rows} rows"
        for name in TABLES
        if not ours[name].equals(theirs[name])
    }


def rows(root: Path) -> int:
    """Rows of all tables."""
    return sum(table.num_rows for table in all_rows(root).values())
