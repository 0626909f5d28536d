"""What documents say of tables, settings and figures is what the code and the benchmarks say."""

import re
from pathlib import Path

import pytest

from pipeline.results.explanation_search import EMBEDDINGS
from stages import TABLES
from tests.documents import DOCUMENTS, NOTEBOOK, known_figures, made_anew, notebook


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.name))
def test_no_document_is_stale(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert made_anew(text, known_figures()) == text, "run: make docs"


def test_the_notebook_is_the_page_about_python() -> None:
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook(), "run: make docs"


def test_the_data_card_describes_every_table() -> None:
    card = Path("outputs/README.md").read_text(encoding="utf-8")
    for name in (*TABLES, EMBEDDINGS.name):
        assert card.count(f"<!-- made: columns {name} -->") == 1, name


def test_the_readme_fits_one_screen_and_names_its_two_commands_first() -> None:
    text = Path("README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 9 * 1024
    assert [line.split("#")[0].strip() for line in text.split("\n") if line.startswith("    make")][:2] == [
        "make run",
        "make test",
    ]


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*DOCUMENTS, Path("CONTRIBUTING.md").absolute()]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_files_that_contributing_names_are_there() -> None:
    text = Path("CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 7 * 1024
    found = re.findall(r"`((?:docs|outputs|pipeline|prompts|stages|tests)/[\w./-]*)`", text)
    assert len(found) > 40
    for name in found:
        assert Path(name).exists(), name
