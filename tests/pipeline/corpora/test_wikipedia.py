"""The sample inside gensim is a hundred readable articles, found without importing gensim."""

import bz2
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.corpora import wikipedia
from pipeline.corpora.wikipedia import read_pages, read_wikipedia, sample_file
from pipeline.corpora.windows import Document
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def articles() -> list[Document]:
    return list(read_wikipedia())


def test_there_are_about_a_hundred_articles_of_two_million_characters(articles: list[Document]) -> None:
    assert 90 <= len(articles) <= 110
    assert 2_000_000 < sum(len(article.text) for article in articles) < 3_500_000
    assert len({article.doc_id for article in articles}) == len(articles)


def test_no_markup_is_left_but_a_trace(articles: list[Document]) -> None:
    text = "".join(article.text for article in articles)
    for mark in ("{{", "}}", "[[", "]]", "'''", "{|", "|}", "<ref", "&nbsp;", "Category:", "[[File:"):
        assert text.count(mark) == 0, mark
    stray = len(re.findall(r"[{}|<>=\[\]_~^\\]", text))
    assert stray < len(text) / 5000


def test_it_reads_as_english_with_capitals_and_punctuation(articles: list[Document]) -> None:
    by_name = {article.doc_id: article.text for article in articles}
    lincoln = by_name["wikipedia/Abraham Lincoln"]
    assert lincoln.startswith(
        "Abraham Lincoln (February 12, 1809 – April 15, 1865) was the 16th President of the United States"
    )
    paragraphs = [line for article in articles for line in article.text.split("\n\n")]
    ended = sum(line[-1] in ".!?:;\"')”" for line in paragraphs)
    assert ended / len(paragraphs) > 0.85
    words = re.findall(r"[A-Za-z]+", " ".join(paragraphs))
    assert 0.04 < sum(word == "the" for word in words) / len(words) < 0.09


def test_gensim_itself_is_not_imported() -> None:
    code = (
        "import sys; from pipeline.corpora.wikipedia import read_wikipedia; next(read_wikipedia());"
        "print(sorted({'gensim', 'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_dump_that_is_cut_off_is_told(tmp_path: Path) -> None:
    for size in (0, 1000, 400_000):
        cut = tmp_path / f"{size}.xml.bz2"
        cut.write_bytes(sample_file().read_bytes()[:size])
        with pytest.raises(UserError, match=r"cannot be read as a Wikipedia dump"):
            list(read_pages(cut))


def test_redirects_and_other_namespaces_are_passed_over(tmp_path: Path) -> None:
    pages = [("A", "0", "", "text of A"), ("B", "0", "<redirect title='A'/>", "#REDIRECT"), ("C", "4", "", "text of C")]
    entries = "".join(
        f"<page><title>{title}</title><ns>{space}</ns>{redirect}<revision><text>{text}</text></revision></page>"
        for title, space, redirect, text in pages
    )
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(bz2.compress(f"<mediawiki xmlns='http://x/'>{entries}</mediawiki>".encode()))
    assert list(read_pages(dump)) == [("A", "text of A")]


def test_a_gensim_without_the_sample_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wikipedia, "package_folder", lambda name: tmp_path)
    with pytest.raises(UserError, match=r"gensim 4\.4\.0"):
        sample_file()
