"""Write a run in the format of another program."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.section import choice, summaries
from pipeline.errors import UserError, nearest
from pipeline.execution.stage import MethodReport
from pipeline.exports import EXPORTS
from pipeline.exports.exported_run import ExportedRun
from pipeline.results.run_folder import open_run
from pipeline.storage.folders import new_folder


def export_run(
    name: str, root: Path, target: Path, reports: Sequence[MethodReport], modules: str = "*", *, every: bool = False
) -> str:
    """Write the folder `target`, as a whole or not at all, and say what is in it.

    Args:
        name: of the format.
        root: the run's folder.
        modules: a pattern for names of modules.
        every: recorded units too that have no explanation.

    Raises:
        UserError: there is no such format, the run has nothing for it, or `target` cannot be made.
    """
    if name not in EXPORTS:
        known = "".join(f"\n  {one}: {summary}" for one, summary in summaries(EXPORTS).items())
        raise UserError(f"there is no format {name!r}; {nearest(name, list(EXPORTS))}{known}")
    run = ExportedRun(open_run(root), [report.table for report in reports], modules, every=every)
    export = choice(EXPORTS, name)
    with new_folder(target) as folder:
        export.write(run, folder)
    files = sum(path.is_file() for path in target.rglob("*"))
    told = f"{target} holds {files:,} files; docs/exports.md says what this format leaves out"
    if not export.has_negative and run.negative is not None:
        count = sum(map(len, run.negative.indices.values()))
        told += f"\nleft out: the polarity '-' of {count:,} explained units, for which {name} has no place"
    return told
