"""How long the pages of a large run take to make and to draw.

A run of 50,000 units is made up (85 exemplars of 64 tokens each, 20 of them simulated), its pages are made, and a real browser
clicks through them from disk. The last line is JSON:

    build_seconds   time to make the pages
    open_ms         from the click on a unit in the list to its drawn page, median over 20 units drawn at random
    open_ms_worst   the same, the longest
    list_ms         from the click on "Units" to the drawn list
    overview_ms     from the click on "Overview" to the drawn page
    filter_ms       from a word in the search field to the filtered list
    start_ms        from opening index.html to the drawn list, data loaded from disk
    megabytes       size of the folder
    units           in the run

Run it with `python -m tests.benchmarks.bench_report [--units 50000]`.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from stages import REPORTS
from tests.integration.browser import browser
from tests.pipeline.report.made_up_run import write_run

OPENED = 20
CLICK = """([selector, address]) => new Promise((done) => {
    const page = document.getElementById("page"), start = performance.now();
    delete page.dataset.drawn;
    new MutationObserver((_, seen) => {
        if (page.dataset.drawn === undefined) return;
        seen.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
    }).observe(page, { attributes: true });
    if (selector) document.querySelector(selector).click(); else location.hash = address;
})"""
"""Milliseconds from a click, or a new address, until the page is drawn and painted."""
FILTER = """(word) => new Promise((done) => {
    const field = document.querySelector("input[type=search]"), count = document.querySelector(".count");
    const start = performance.now();
    new MutationObserver((_, seen) => {
        seen.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
    }).observe(count, { childList: true, characterData: true, subtree: true });
    field.value = word;
    field.dispatchEvent(new Event("input"));
})"""


def clicked(index: Path, units: int) -> dict[str, float]:
    """What a browser takes to draw the pages, in milliseconds."""
    rng = np.random.default_rng(1)
    with browser() as opened:
        page = opened.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        page.goto(index.as_uri())
        page.wait_for_selector("#page[data-drawn]", timeout=60_000)
        times: dict[str, float] = {"start_ms": 1000 * (time.perf_counter() - start)}
        drawn = [
            float(page.evaluate(CLICK, [None, f"#/unit/layers.{unit // 1536}.mlp/{unit % 1536}"]))
            for unit in rng.choice(units, min(OPENED, units), replace=False).tolist()
        ]
        times |= {"open_ms": statistics.median(drawn), "open_ms_worst": max(drawn)}
        times["overview_ms"] = page.evaluate(CLICK, ["[data-page=overview]", None])
        times["list_ms"] = page.evaluate(CLICK, ["[data-page=units]", None])
        times["filter_ms"] = page.evaluate(FILTER, "7")
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=50_000)
    units = parser.parse_args().units
    with tempfile.TemporaryDirectory() as folder:
        root = write_run(Path(folder) / "large", units, 20_000, module_units=1536)
        start = time.perf_counter()
        index = write_pages(open_run(root), REPORTS, lambda done, total: None)
        figures: dict[str, Any] = {"build_seconds": time.perf_counter() - start}
        figures |= clicked(index, units)
        figures["megabytes"] = sum(file.stat().st_size for file in index.parent.rglob("*") if file.is_file()) / 1e6
    print(json.dumps({name: round(value, 1) for name, value in figures.items()} | {"units": units}))


if __name__ == "__main__":
    main()
