"""The pictures of pages in the documents: python -m tests.screenshots outputs/demo"""

import sys
from pathlib import Path

from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from stages import REPORTS
from tests.integration.browser import browser

PICTURES = {
    "list": ("#/units?sort=score:desc", 1200, 640),
    "unit": ("#/unit/layers.4.mlp/591", 1200, 900),
    "overview": ("#/overview", 1200, 720),
    "phone": ("#/unit/layers.4.mlp/591", 390, 800),
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


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path("docs/pictures"))
