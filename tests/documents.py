"""The parts of the documents that are made from the code and from measurements; `make docs` makes them anew.

A part stands between `<!-- made: WHAT -->` and `<!-- end -->`, where WHAT is

    columns TABLE            the version and the columns of a table, from its schema
    settings                 every setting of run files
    figure BENCHMARK.NAME    a figure as a benchmark printed it last, from docs/figures.json
    table BENCHMARK          all figures of a benchmark that prints columns of rows
    measured BENCHMARK       the day and the machine of that
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import with_sections
from pipeline.config.reference import all_settings, as_markdown
from stages import TABLES
from stages.settings import SECTIONS

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures.json"
DOCUMENTS = [ROOT / "README.md", ROOT / "outputs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE = re.compile(r"(<!-- made: (\w+) ?([\w.]*) -->)(.*?)(<!-- end -->)", re.DOTALL)


def made_anew(text: str, figures: Mapping[str, Any]) -> str:
    """A document with all its made parts as they should be."""
    return MADE.sub(lambda part: f"{part[1]}{_part(part[2], part[3], figures)}{part[5]}", text)


def _part(kind: str, name: str, figures: Mapping[str, Any]) -> str:
    if kind == "columns":
        return f"\n{_columns(name)}\n"
    if kind == "settings":
        return f"\n{as_markdown(all_settings(with_sections(SECTIONS)))}\n"
    if kind == "figure":
        benchmark, figure = name.split(".", 1)
        if benchmark not in figures:
            return "not measured"
        value = figures[benchmark]["figures"][figure]
        return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.3g}"
    if kind == "table":
        return f"\n{_columns_of_figures(figures[name]['figures'])}\n" if name in figures else "\nnot measured\n"
    if kind == "measured":
        found = figures.get(name)
        return f"{found['date']}, {found['machine']}" if found else "not measured"
    raise ValueError(f"nothing is made for {kind!r}")


def _columns(name: str) -> str:
    table = TABLES[name]
    lines = [f"Version `{table.tag}`.", "", "| column | type | meaning |", "|---|---|---|"]
    for field in table.schema:
        meaning = (field.metadata or {})[b"meaning"].decode().replace("|", "\\|")
        lines.append(f"| `{field.name}` | {str(field.type).replace('element: ', '')} | {meaning} |")
    return "\n".join(lines)


def _columns_of_figures(columns: Mapping[str, Mapping[str, str]]) -> str:
    rows = next(iter(columns.values()))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(one[row] for one in columns.values())} |" for row in rows)])


def known_figures() -> dict[str, Any]:
    """What benchmarks printed last, by benchmark."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    return found


def main() -> None:
    """Make all documents anew."""
    for path in DOCUMENTS:
        path.write_text(made_anew(path.read_text(encoding="utf-8"), known_figures()), encoding="utf-8")


if __name__ == "__main__":
    main()
