"""The pictures of pages in the documents: python -m tests.screenshots outputs/demo"""

import sys
from pathlib import Path

from pipeline.config.run_file import load_config
from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from stages import REPORTS
from stages.settings import SECTIONS
from stages.try_units import UnitTrials
from tests.integration.browser import browser
from tests.pipeline.serve.serving import serving

PICTURES = {
    "list": ("#/units?sort=score:desc", 1200, 640),
    "unit": ("#/unit/layers.15.mlp/1170", 1200, 900),
    "overview": ("#/overview", 1200, 720),
    "phone": ("#/unit/layers.15.mlp/1170", 390, 800),
}
"""By name: an address of the demo's pages, width and height in pixels."""


def take(root: Path, folder: Path) -> None:
    """Write a picture of each page of a run into a folder."""
    index = write_pages(open_run(root), REPORTS, lambda done, total: None)
    folder.mkdir(exist_ok=True)
    with browser() as opened:
        for name, (address, width, height) in PICTURES.items():
            page = opened.new_page(viewport={"width": width, "height": height})
            page.goto(index.as_uri() + address)
            page.wait_for_selector("#page[data-drawn]")
            page.wait_for_timeout(300)  # charts are drawn in the next frame
            page.screenshot(path=folder / f"{name}.png")


def take_served(root: Path, picture: Path) -> None:
    """Write a picture of what is tried on a unit of the demo, served."""
    config = load_config("demo", SECTIONS)
    with serving(root, lambda: UnitTrials(config)) as served, browser() as opened:
        page = opened.new_page(viewport={"width": 1000, "height": 700})
        page.goto(f"{served.opened.address}#/unit/layers.15.mlp/1170")
        page.fill("#try-text", "It was planned and intended to be a house, they said. A decision was awaited.")
        page.click("#try-text + button")
        page.wait_for_selector("#try-text-found .tokens", timeout=120_000)
        page.fill("#try-explanation", 'the words "planned", "intended" and "designed"')
        page.click("#try-explanation + button")
        page.wait_for_selector("#try-explanation-found .score", timeout=120_000)
        page.evaluate("document.querySelectorAll('#try-it .exemplar:nth-of-type(n+5)').forEach((one) => one.remove())")
        page.locator("#try-it").screenshot(path=picture)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path("docs/pictures"))
    take_served(Path(sys.argv[1]), Path("docs/pictures/try.png"))
