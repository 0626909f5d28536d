"""A unit's page for notebooks shows any text as text, and its colours can be read on a light and on a dark page."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.results.notebook_page import NO_FORMULAS, unit_page
from pipeline.results.shown_sequence import ABOVE, BELOW, LONGEST, SCALE, STRONGEST, shown_sequence
from pipeline.results.shown_unit import ShownExemplar, ShownExplanation
from pipeline.terminal_text import safe
from tests.tiers import examples

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "'><svg onload=alert(1)>",
    "&lt;b&gt;",
    "\u202eabc\u2066",
    "\x00\x1b[31m",
    "]]><!--",
    "\ud800",
    "x" * 10_000,
]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ALLOWED = {"div", "h4", "ul", "li", "b", "span"}


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def page(text: str, activations: list[float] | None = None, expected: list[float] | None = None) -> str:
    """The page of a unit with a text in every place."""
    tokens = shown_sequence([text, text], activations or [1.0, 2.0], expected or [0.0, 10.0], 1, 2.0, "+")
    explanation = ShownExplanation(text, text, [text])
    return unit_page(text, [text], [explanation], [ShownExemplar(text, tokens)])


def check(text: str) -> None:
    html = page(text)
    html.encode("utf-8")
    read = Page(html)
    assert read.open == []
    assert read.tags <= ALLOWED
    assert {name for name, _ in read.attributes} <= {"style", "title", "class"}
    for name, value in read.attributes:
        assert value is not None
        assert (
            name == "title"
            or value == NO_FORMULAS
            or not {"url", "expression", "javascript", "<", "\\"} & set(value.replace("(", " ").split())
        )
    assert read.text.count(safe(text)) >= (6 if len(text) > LONGEST else 8)
    assert all(character.isprintable() for character in read.text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_text_in_every_place(text: str) -> None:
    check(text)


@settings(max_examples=examples(200))
@given(st.text(min_size=1, max_size=50))
def test_any_text_is_text_in_every_place(text: str) -> None:
    check(text)


def title_in_a_browser(html: str, folder: Path) -> str:
    """The title of a page once its scripts, if any, have run."""
    file = folder / "page.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><title>as it was</title><body>{html}', encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run([str(BROWSER), *options, str(file)], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split("<title>")[1].split("</title>")[0]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="a browser is needed: apt-get install chromium")
def test_nothing_of_a_hostile_text_runs_in_a_browser(tmp_path: Path) -> None:
    hostile = [text.replace("alert(1)", "document.title=`ran`") for text in HOSTILE[:-2]]
    assert title_in_a_browser(hostile[0], tmp_path) == "ran", "it would run if it were not escaped"
    assert title_in_a_browser("".join(map(page, hostile)), tmp_path) == "as it was"


def test_a_long_token_is_cut_and_says_how_long_it_is() -> None:
    [token] = shown_sequence(["x" * 10_000], [1.0], None, 0, 1.0, "+")
    assert token.text == "x" * LONGEST + "… (10,000 characters)"


def test_true_stands_above_simulated_on_one_scale_symmetric_about_zero() -> None:
    html = page("word", [2.0, -2.0], [10.0, 0.0])
    red, green, blue = ABOVE
    orange = f"rgba({red},{green},{blue},0.600)"
    assert f"linear-gradient({orange} 70%,{orange} 70%)" in html, "10 of 10 has the same colour, true or simulated"
    red, green, blue = BELOW
    assert f"linear-gradient(rgba({red},{green},{blue},0.600) 70%,rgba(" in html
    assert 'title="true -10.0, simulated 0.0"' in html
    assert html.count("text-decoration:underline") == 1


def test_of_polarity_minus_what_is_simulated_is_shown_below_zero_too() -> None:
    [first, second] = shown_sequence(["a", "b"], [-4.0, 1.0], [10.0, 0.0], 0, 4.0, "-")
    assert (first.true, first.simulated) == (-SCALE, -SCALE)
    assert (second.true, second.simulated) == (2.5, 0.0)


def test_what_does_not_count_has_neither_colour_nor_number() -> None:
    tokens = shown_sequence(["a", "b", "c"], [float("nan"), float("inf")], None, 5, 0.0, "+")
    assert [(token.true, token.simulated, token.is_peak) for token in tokens] == [(None, None, False)] * 3
    html = unit_page("unit", [], [], [ShownExemplar("", tokens)])
    assert "linear-gradient" not in html
    assert 'title=""' in html


def luminance(colour: tuple[float, ...]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("hue", [ABOVE, BELOW])
@pytest.mark.parametrize(("page_colour", "text_colour"), [((255,) * 3, (0,) * 3), ((17,) * 3, (255,) * 3)])
def test_text_on_the_strongest_colour_has_the_contrast_that_wcag_asks_for(
    hue: tuple[int, ...], page_colour: tuple[int, ...], text_colour: tuple[int, ...]
) -> None:
    mixed = tuple(STRONGEST * own + (1 - STRONGEST) * other for own, other in zip(hue, page_colour, strict=True))
    low, high = sorted([luminance(mixed), luminance(text_colour)])
    assert (high + 0.05) / (low + 0.05) >= 4.5
