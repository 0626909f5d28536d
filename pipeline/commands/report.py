"""Make the pages of a run, with a bar that shows how far they are."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pipeline.execution.stage import MethodReport
from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run


def make_report(root: Path, methods: Sequence[MethodReport]) -> str:
    """Write the pages of the run in `root`; returns in words where they are.

    Raises:
        UserError: there is no such run, or it has scored no unit yet.
    """
    with tqdm(desc="make pages", unit=" units", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        page = write_pages(open_run(root), methods, progress)
    megabytes = sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file()) / 1e6
    return f"Pages: {page} ({megabytes:,.1f} MB; open it in a browser, or copy the folder anywhere)"
