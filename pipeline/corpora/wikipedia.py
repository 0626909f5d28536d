"""The sample of English Wikipedia that comes inside the gensim package; gensim itself is not imported."""

import bz2
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pipeline.corpora.document import Document, in_pieces
from pipeline.corpora.wikitext import clean_wikitext
from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import package_folder

SPEC = "package:gensim-wikipedia"
SAMPLE = Path("test", "test_data", "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
MIN_CHARACTERS = 500
"""A page with less prose is a list of links, not an article."""


def sample_file() -> Path:
    """The compressed dump.

    Raises:
        UserError: gensim is not installed, or holds no sample.
    """
    file = package_folder("gensim") / SAMPLE
    if not file.is_file():
        raise UserError(f"corpus.source = {SPEC!r}: the installed gensim holds no {SAMPLE.name}; install gensim 4.4.0")
    return file


def read_wikipedia() -> Iterator[Document]:
    """The articles of the sample as prose, about a hundred; `doc_id` is `wikipedia/TITLE`."""
    for title, markup in read_pages(sample_file()):
        text = clean_wikitext(markup)
        if len(text) >= MIN_CHARACTERS and not title.endswith("(disambiguation)"):
            yield from in_pieces(f"wikipedia/{title}", text)


def read_pages(dump: Path) -> Iterator[tuple[str, str]]:
    """Title and markup of the articles in a MediaWiki dump (.xml.bz2), without redirects and other namespaces."""
    try:
        with bz2.open(dump) as stream:
            events = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314 - a file of an installed package
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag.endswith("}page"):
                    space = element.tag[: -len("page")]
                    if element.findtext(f"{space}ns") == "0" and element.find(f"{space}redirect") is None:
                        markup = element.findtext(f"{space}revision/{space}text") or ""
                        yield element.findtext(f"{space}title") or "", markup
                    root.clear()
    except (ElementTree.ParseError, EOFError, OSError, StopIteration) as error:
        raise UserError(f"{dump} cannot be read as a Wikipedia dump ({error}); install gensim again") from None
