"""The data card names every table, column, type and meaning, and its queries run."""

import re
from pathlib import Path

import pytest

from pipeline.schemas import TableSchema
from stages import TABLES

CARD = Path("outputs/README.md").read_text(encoding="utf-8")


def described(table: TableSchema) -> list[tuple[str, str, str]]:
    """Rows of a table's section of the card: column, type, meaning."""
    section = CARD.split(f"## `{table.name}`", 1)[1].split("\n## ", 1)[0]
    return [
        (name, kind, meaning.replace("\\|", "|"))
        for name, kind, meaning in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, flags=re.M)
    ]


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_the_card_describes_every_column_as_the_schema_does(table: TableSchema) -> None:
    wanted = [
        (f.name, str(f.type).replace("element: ", ""), (f.metadata or {})[b"meaning"].decode()) for f in table.schema
    ]
    assert described(table) == wanted


def test_the_card_names_the_version_of_every_table() -> None:
    for table in TABLES.values():
        assert f"`{table.tag}`" in CARD
