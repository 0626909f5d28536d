"""A served run in a real browser: its pages, and what is typed into a unit's page and tried."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.config.run_file import load_config
from pipeline.results.run_folder import open_run
from pipeline.storage.by_hand import FOLDER, read_by_hand
from stages.settings import SECTIONS
from stages.try_units import UnitTrials
from tests.integration.browser import browser, needs_browser
from tests.integration.reduced import write_run_file
from tests.pipeline.serve.serving import Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, needs_browser]
SIZES = [{"width": 1280, "height": 900}, {"width": 390, "height": 800}]
HOSTILE = "</script><img src=x onerror='window.hacked = 1'> \u202e red"


@pytest.fixture(scope="module")
def own(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of a copy of the finished run, in which something is saved."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("reduced", "beside"):
        shutil.copytree(finished.parent / "reduced", folder / name)
    return write_run_file(folder)


@pytest.fixture(scope="module")
def served(own: Path) -> Iterator[Served]:
    config = load_config(str(own), SECTIONS)
    with serving(config.root, lambda: UnitTrials(config)) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(served: Served) -> Iterator["Browser"]:
    with browser() as opened:
        yield opened


def visit(chromium: "Browser", address: str, size: dict[str, int]) -> tuple["Page", list[str]]:
    """A page of the server, and what goes wrong on it from now on: faults, and requests to anywhere else."""
    page, faults = chromium.new_context(viewport=size).new_page(), list[str]()
    server = address.split("#")[0]
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(server) else faults.append(asked.url))
    page.goto(address)
    page.wait_for_selector("#page[data-drawn]")
    return page, faults


@pytest.mark.parametrize("size", SIZES, ids=["desk", "phone"])
def test_an_explanation_and_a_text_are_tried(
    chromium: "Browser", served: Served, root: Path, size: dict[str, int]
) -> None:
    scores = open_run(root).scores.query("status == 'ok'")
    row = scores.nlargest(1, "correlation").iloc[0]
    page, faults = visit(chromium, f"{served.opened.address}#/unit/{row['module']}/{row['index']}", size)
    page.fill("#try-explanation", row["text"])
    page.click("#try-explanation + button")
    page.wait_for_selector("#try-explanation-found .score", timeout=60_000)
    assert f"correlation {row['correlation']:.3f}" in page.inner_text("#try-explanation-found .score")
    shown = page.locator("#try-explanation-found .exemplar").first
    assert shown.locator(".bar.real").count() > 0
    assert page.locator("#try-explanation-found .bar.simulated").count() > 0
    page.fill("#try-text", HOSTILE)
    page.click("#try-text + button")
    page.wait_for_selector("#try-text-found .tokens", timeout=60_000)
    typed = page.inner_text("#try-text-found .tokens").replace("\u00a0", " ").replace("\n", "")
    assert "</script><img" in typed
    assert "\u202e" not in typed
    assert "Strongest:" in page.inner_text("#try-text-found .score")
    page.locator("#try-text-found .token").last.click()
    assert "real" in page.inner_text("#says")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert faults == []


@pytest.mark.parametrize("size", SIZES, ids=["desk", "phone"])
def test_an_explanation_is_typed_and_saved(
    chromium: "Browser", served: Served, own: Path, size: dict[str, int]
) -> None:
    root = own.parent / "reduced"
    row = open_run(root).scores.query("status == 'ok'").iloc[0]
    address = f"{served.opened.address}#/unit/{row['module']}/{row['index']}"
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    page, faults = visit(chromium, address, size)
    assert page.locator("#saved li").count() == 0
    page.fill("#try-explanation", HOSTILE)
    page.click("#try-explanation-save")
    page.wait_for_selector("#try-explanation-found .kept")
    assert "next make run scores it" in page.inner_text("#try-explanation-found")
    [kept] = read_by_hand(root)
    assert (kept.module, kept.index, kept.polarity, kept.text) == (row["module"], row["index"], "+", HOSTILE)
    page, more = visit(chromium, address, size)
    page.wait_for_selector("#saved li")
    assert "</script><img" in page.inner_text("#saved")
    page.fill("#try-explanation", row["text"])
    page.click("#try-explanation-save")
    page.wait_for_selector("#try-explanation-found .kept")
    assert "scored these words" in page.inner_text("#try-explanation-found")
    assert page.locator("#saved li").count() == 1
    page.fill("#try-explanation", "")
    page.click("#try-explanation-save")
    assert len(read_by_hand(root)) == 2
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert faults + more == []


@pytest.mark.parametrize("size", SIZES, ids=["desk", "phone"])
def test_another_run_is_chosen_and_its_pages_stay_among_its_own(
    chromium: "Browser", served: Served, own: Path, size: dict[str, int]
) -> None:
    row = open_run(own.parent / "reduced").scores.query("status == 'ok'").iloc[0]
    unit = f"#/unit/{row['module']}/{row['index']}"
    page, faults = visit(chromium, f"{served.opened.address}{unit}", size)
    assert page.locator("#run-choice option").all_inner_texts() == ["reduced", "beside"]
    page.select_option("#run-choice", "beside")
    page.wait_for_url(f"**/run/beside/{unit}")
    page.wait_for_selector("#page[data-drawn]")
    assert page.input_value("#run-choice") == "beside"
    assert page.evaluate("NG.run.name") == "beside"
    page.click("#in-other-runs a")
    page.wait_for_url(f"**/run/reduced/{unit}")
    page.wait_for_selector("#page[data-drawn]")
    assert page.evaluate("NG.run.name") == "reduced"
    page.fill("#try-explanation", "words of the other address")
    page.click("#try-explanation-save")
    page.wait_for_selector("#try-explanation-found .kept")
    assert "words of the other address" in [one.text for one in read_by_hand(own.parent / "reduced")]
    assert read_by_hand(own.parent / "beside") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert faults == []


def test_a_refused_attempt_is_told_on_the_page(chromium: "Browser", served: Served) -> None:
    page, _ = visit(chromium, f"{served.opened.address}", SIZES[0])
    page.click(".slick-row a >> nth=0")
    page.wait_for_selector("#try-text")
    page.fill("#try-text", "\n\n")
    page.click("#try-text + button")
    page.wait_for_selector("#try-text-found [role=alert]")
    assert "blank" in page.inner_text("#try-text-found")


def test_every_page_of_a_served_run_is_drawn(chromium: "Browser", served: Served) -> None:
    for place in ("#/units", "#/overview", "#/unit/layers.9.mlp/none"):
        page, faults = visit(chromium, f"{served.opened.address}{place}", SIZES[0])
        page.wait_for_load_state("networkidle")
        assert faults == []
        assert page.locator("#page h1, .grid").count() > 0
