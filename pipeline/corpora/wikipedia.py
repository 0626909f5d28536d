"""The sample of English Wikipedia inside the gensim package as plain prose; gensim itself is not imported.

Of wiki markup, templates, tables, references, links and headings go, sentences stay.
"""

import bz2
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from pipeline.corpora.windows import Document, in_pieces
from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import package_folder

SPEC = "package:gensim-wikipedia"
SAMPLE = Path("test", "test_data", "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
MIN_CHARACTERS = 500
"""A page with less prose is a list of links, not an article."""
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_SELF_CLOSED = re.compile(r"<(?:ref|references|nowiki)\b[^<>]*/>", re.IGNORECASE)
_REMOVED = re.compile(
    r"<(ref|math|gallery|source|syntaxhighlight|timeline|table|score|chem|imagemap|references|hiero)\b[^<>]*>.*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_BREAK = re.compile(r"<(?:br|hr|li|p)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"\{\|(?:(?!\{\||\{\{).)*?\|\}(?!\})", re.DOTALL)
_ARGUMENT = re.compile(r"\|(?![^\[\]]*\]\])")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]*[ \t]*([^\[\]]*)\]", re.IGNORECASE)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_NAMESPACE = re.compile(
    r"\s*(?:file|image|category|media|template|wp|wikipedia|[a-z]{2,3}|be-x-old|simple|zh-[a-z-]+)\s*:\S", re.IGNORECASE
)
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]+__")
_HEADING = re.compile(r"^(={2,6})\s*(.*?)\s*\1\s*$")
_LIST = re.compile(r"^[*#:;]+\s*")
_EMPTY_BRACKETS = re.compile(r"\s*[(\[][\s,;:/–-]*[)\]]")
_OPEN_BRACKET = re.compile(r"\((?:\s*[,;:])+\s*")
_CLOSE_BRACKET = re.compile(r"(?:\s*[,;:])+\s*\)")
_SPACE_BEFORE = re.compile(r"[ \t]+([,.;:!?)])")
_SPACE_AFTER = re.compile(r"\([ \t]+")
_SPACES = re.compile(r"[ \t\u00a0\u2009\u202f]+")

BACK_MATTER = {
    "bibliography", "citations", "external links", "filmography", "footnotes", "further reading", "gallery", "notes",
    "notes and references", "references", "see also", "sources", "works cited",
}  # fmt: skip
"""Headings of level two whose sections hold no prose."""

SHOWN = {
    "'s": (0, "'s"), "ndash": (0, "–"), "mdash": (0, "—"), "spaced ndash": (0, " – "),
    "snd": (0, " – "), "nbsp": (0, " "),
    "spaces": (0, " "), "·": (0, " · "), "pipe": (0, "|"), "lang": (2, ""), "transl": (-1, ""), "nowrap": (1, ""),
    "small": (1, ""), "smaller": (1, ""), "nihongo": (1, ""), "quote": (1, ""), "angbr": (1, ""),
    "as of": (1, "As of "),
    "circa": (1, "c. "), "c.": (1, "c. "), "sc": (1, ""), "val": (1, ""), "vanchor": (1, ""), "native name": (2, ""),
    "keypress": (1, ""), "flag": (1, ""), "flagcountry": (1, ""), "nts": (1, ""), "dts": (1, ""), "tooltip": (1, ""),
    "abbr": (1, ""), "visible anchor": (1, ""), "blockquote": (1, ""), "cquote": (1, ""), "math": (1, ""),
    "linktext": (1, ""), "em": (1, ""), "strong": (1, ""), "not a typo": (1, ""), "sic": (1, ""), "ship": (2, ""),
}  # fmt: skip
"""Templates that stand for text: the positional argument that is shown, and what stands in front of it."""

MIN_LINE_WORDS = 4
"""A shorter line is a caption or what is left of a template."""
MIN_ITEM_WORDS = 6
"""An entry of a list is prose from this many words on."""


def sample_file() -> Path:
    """The compressed dump. Raises UserError: gensim is not installed, or holds no sample."""
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


def clean_wikitext(markup: str) -> str:
    """The prose of a wiki page: paragraphs of plain text with punctuation and capitals, one empty line between them.

    References, images, tables, formulas, headings, short list entries, and the sections behind the article (references,
    external links) are left out. Templates that stand for text, such as units and foreign words, are written out.
    """
    text = _REMOVED.sub("", _SELF_CLOSED.sub("", _COMMENT.sub("", markup)))
    text = _inside_out(_BREAK.sub("\n", text), (_TEMPLATE, _render), (_TABLE, lambda _: ""))
    text = _EXTERNAL.sub(r"\1", text.replace("{{", "").replace("}}", ""))
    text = _inside_out(text, (_LINK, _label)).replace("[[", "").replace("]]", "")
    text = _MAGIC.sub("", _QUOTES.sub("", _TAG.sub("", text)))
    text = html.unescape(text)
    return "\n\n".join(paragraph for paragraph in map(_tidy, _prose_lines(text)) if paragraph)


def _inside_out(text: str, *replaced: tuple[re.Pattern[str], Callable[[re.Match[str]], str]]) -> str:
    """Replace what patterns match, until nothing is left that they do: what is nested goes from the inside out."""
    before = None
    while before != text:
        before = text
        for pattern, shown in replaced:
            text = pattern.sub(shown, text)
    return text


def _render(template: re.Match[str]) -> str:
    """What a template shows."""
    name, *arguments = _ARGUMENT.split(template[1])
    name = name.strip().lower().replace("_", " ")
    positional = [argument.strip() for argument in arguments if "=" not in argument.split("[[")[0]]
    if name in {"convert", "cvt"} and len(positional) >= 2:
        if len(positional) >= 4 and positional[1] in {"to", "-", "–", "and", "or", "x"}:
            return f"{positional[0]} {positional[1]} {positional[2]} {positional[3]}"
        return f"{positional[0]} {positional[1]}"
    if name == "frac" and positional:
        return "/".join(positional[-2:])
    if name == "chem":
        return "".join(positional)
    if name.startswith("lang-") and positional:
        return positional[0]
    place, front = SHOWN.get(name, (None, ""))
    if place == 0:
        return front
    if place is None or len(positional) < place or not positional:
        return ""
    return front + positional[place - 1 if place > 0 else -1]


def _label(match: re.Match[str]) -> str:
    """What a link shows; images and categories show nothing."""
    target, *rest = match[1].split("|")
    if _NAMESPACE.match(target):
        return ""
    return (rest[-1] if rest else target.removeprefix(":")).strip()


def _prose_lines(text: str) -> list[str]:
    """The lines that hold prose, up to the sections behind the article."""
    lines, skipping = [], False
    for line in text.splitlines():
        line = line.strip()
        heading = _HEADING.match(line)
        if heading:
            if len(heading[1]) == 2:
                skipping = heading[2].lower() in BACK_MATTER
            continue
        line, items = _LIST.subn("", line)
        caption = line.startswith(("|", "!", "{|", "#REDIRECT", "File:", "Image:"))
        if not (skipping or caption or (items and len(line.split()) < MIN_ITEM_WORDS)):
            lines.append(line)
    return lines


def _tidy(line: str) -> str:
    """Mend what removed markup left behind: empty brackets, doubled spaces; drop lines without a word."""
    line = _inside_out(line, (_EMPTY_BRACKETS, lambda _: ""))
    line = _CLOSE_BRACKET.sub(")", _OPEN_BRACKET.sub("(", line))
    line = _SPACE_AFTER.sub("(", _SPACE_BEFORE.sub(r"\1", _SPACES.sub(" ", line))).strip()
    return line if len(line.split()) >= MIN_LINE_WORDS and any(character.isalpha() for character in line) else ""
