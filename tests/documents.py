"""The parts of the documents that are made from the code and from measurements, and a notebook; `make docs` makes them anew.

A part stands between `<!-- made: WHAT -->` and `<!-- end -->`, where WHAT is

    columns TABLE            the version and the columns of a table, from its schema
    settings                 every setting of run files
    figure BENCHMARK.NAME    a figure as a benchmark printed it last, from docs/figures.json
    table BENCHMARK          all figures of a benchmark that prints columns of rows; BENCHMARK.NAME for one of several such tables
    measured BENCHMARK       the day and the machine of that

The notebook is a page about Python, with a cell for each block of code.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import with_sections
from pipeline.config.reference import all_settings, as_markdown
from pipeline.results.explanation_search import EMBEDDINGS
from stages import TABLES
from stages.settings import SECTIONS

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures.json"
DOCUMENTS = [ROOT / "README.md", ROOT / "outputs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE, NOTEBOOK = ROOT / "docs" / "python.md", ROOT / "docs" / "from-run-to-figure.ipynb"
TO_PROJECT = 'import os\n\nos.chdir("..")  # to the folder that holds outputs/'
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
        benchmark, _, part = name.partition(".")
        if benchmark not in figures:
            return "\nnot measured\n"
        found = figures[benchmark]["figures"]
        return f"\n{_columns_of_figures(found[part] if part else found)}\n"
    if kind == "measured":
        found = figures.get(name)
        return f"{found['date']}, {found['machine']}" if found else "not measured"
    raise ValueError(f"nothing is made for {kind!r}")


def _columns(name: str) -> str:
    table = (TABLES | {EMBEDDINGS.name: EMBEDDINGS})[name]
    lines = [f"Version `{table.tag}`.", "", "| column | type | meaning |", "|---|---|---|"]
    for field in table.schema:
        meaning = (field.metadata or {})[b"meaning"].decode().replace("|", "\\|")
        lines.append(f"| `{field.name}` | {str(field.type).replace('element: ', '')} | {meaning} |")
    return "\n".join(lines)


def _columns_of_figures(columns: Mapping[str, Mapping[str, str]]) -> str:
    rows = next(iter(columns.values()))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(one[row] for one in columns.values())} |" for row in rows)])


def notebook() -> str:
    """PAGE, up to what it says of the terminal, as a notebook that starts in its own folder."""
    text = PAGE.read_text(encoding="utf-8").split("## On the terminal")[0]
    text = text.replace("```python\n", f"```python\n{TO_PROJECT}\n\n", 1)
    parts = re.split(r"```python\n(.*?)```\n", text, flags=re.DOTALL)  # prose and code in turn
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": [_cell(number, part) for number, part in enumerate(parts) if part.strip()],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, source: str) -> dict[str, Any]:
    """A cell of the notebook; those of odd numbers are code."""
    cell = {"id": f"cell-{number}", "metadata": {}, "source": source.strip().splitlines(keepends=True)}
    if number % 2:
        return cell | {"cell_type": "code", "execution_count": None, "outputs": []}
    return cell | {"cell_type": "markdown"}


def known_figures() -> dict[str, Any]:
    """What benchmarks printed last, by benchmark."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    return found


def main() -> None:
    """Make all documents anew."""
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
    for path in DOCUMENTS:
        path.write_text(made_anew(path.read_text(encoding="utf-8"), known_figures()), encoding="utf-8")


if __name__ == "__main__":
    main()
