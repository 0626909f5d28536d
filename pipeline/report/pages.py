"""The folder of pages that a browser opens from disk: the page itself, its libraries, and the data of a run as scripts."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.execution.provenance import shown_provenance
from pipeline.execution.stage import MethodReport
from pipeline.report.data_scripts import packed, rounded, write_script
from pipeline.report.other_runs import in_other_runs
from pipeline.report.shown_corpus import SEQUENCES_IN_FILE, write_corpus
from pipeline.report.unit_data import LEVELS, STEPS, STRONGEST, UnitData
from pipeline.report.unit_list import NUMBERS, list_units
from pipeline.results.discoveries import discoveries
from pipeline.results.repeats import luck
from pipeline.results.run_caveats import caveats_of
from pipeline.results.run_folder import RunFolder
from pipeline.storage.folders import new_folder
from pipeline.storage.stores import scratch

SITE = Path(__file__).with_name("site")
"""The page, its styles and scripts, and the libraries in `libraries/`."""
FOLDER = "report"
"""In the run's folder, or in its `scratch`."""
MADE_BY = ("schema", "fingerprint", "git_commit", "created_by", "inputs")


def write_pages(run: RunFolder, methods: Sequence[MethodReport], progress: Callable[[int, int], None]) -> Path:
    """Write RUN/report and return its index.html. An earlier report is replaced once the new one is complete.

    Args:
        methods: those of the run, the most important first.
        progress: told how many units of how many are written.

    Raises:
        UserError: the run has scored no unit yet, or the disk is full or cannot be written.
    """
    used = [method for method in methods if method.table in run.tables]
    if not used:
        raise UserError(f"no unit of {run.root} is scored yet; finish the run with: make run")
    final = scratch(run.root) / FOLDER
    with new_folder(final, replace=True) as folder:
        shutil.copytree(SITE, folder, dirs_exist_ok=True)
        _write_data(run, used, folder / "data", progress)
    return (final / "index.html").resolve()


def _write_data(
    run: RunFolder, methods: Sequence[MethodReport], folder: Path, progress: Callable[[int, int], None]
) -> None:
    units = list_units(run, methods)
    data, done = UnitData(run, units, in_other_runs(run, units, methods)), 0
    for written in data.write(folder):
        done += written
        progress(done, data.count)
    sequences = write_corpus(run, data.sequences, folder)
    write_script(folder, "list", units.as_json())
    write_script(folder, "strongest", packed(data.strongest))
    write_script(folder, "run", run_facts(run, methods, data, sequences))


def run_facts(run: RunFolder, methods: Sequence[MethodReport], data: UnitData, sequences: int) -> dict[str, Any]:
    """The run as a whole: scales, methods, tables and how they were made, failures, calibration.

    Args:
        sequences: of the corpus that the pages have.
    """
    return {
        "name": run.root.resolve().name,
        "units": data.count,
        "sequences": sequences,
        "strongest": STRONGEST if (data.strongest >= 0).any() else 0,
        "scales": {"levels": LEVELS, "steps": STEPS, "sequences": SEQUENCES_IN_FILE},
        "numbers": list(NUMBERS),
        "methods": [_method(run, method) for method in methods],
        "tables": {name: _facts(run, name) for name in run.tables},
        "provenance": shown_provenance(run.root),
        "failures": _failures(run),
        "calibration": [[int(count), rounded(total / count if count else None)] for count, total in data.calibration],
    }


def _method(run: RunFolder, method: MethodReport) -> dict[str, Any]:
    """The table of a method, its columns, and what its p-values show, behind what has to be known of the run."""
    said = [*caveats_of(run.root), *luck(run.root, method.table)]
    tested = [f"{', '.join(one.methods.values())}: {one.sentence}" for one in discoveries(run.connection, method)]
    return {"table": method.table, "score": method.score, "numbers": dict(method.numbers), "tested": [*said, *tested]}


def _facts(run: RunFolder, table: str) -> dict[str, Any]:
    """What a table says of itself: its columns, rows, who made it, how long it took and which tokens it cost."""
    files = run.files(table)
    schema = run.dataset(table).schema
    found: dict[str, Any] = {
        "columns": {field.name: (field.metadata or {}).get(b"meaning", b"").decode() for field in schema},
        "rows": run.dataset(table).count_rows(),
        "files": len(files),
        "seconds": rounded(sum(float(run.provenance(table, path).get("seconds", 0)) for path in files)),
        "made": {key: value for key, value in run.provenance(table).items() if key in MADE_BY},
        "written": max(path.stat().st_mtime for path in files),
    }
    if "completion_tokens" in schema.names:
        sums = f"SELECT model, sum(prompt_tokens), sum(completion_tokens) FROM {table} WHERE model <> '' GROUP BY 1 ORDER BY 1"
        found["spent"] = [
            [model, int(read or 0), int(written or 0)] for model, read, written in run.sql(sums).fetchall()
        ]
    return found


def _failures(run: RunFolder) -> list[list[Any]]:
    """Table, status, error and number of rows of what has no result."""
    found: list[tuple[Any, ...]] = []
    for name in run.tables:
        if "error" in run.dataset(name).schema.names:
            found += run.sql(
                f"""SELECT '{name}', status, left(error, 300), count(*) FROM {name}
                    WHERE status NOT IN ('ok', 'not_selected') GROUP BY ALL ORDER BY 4 DESC, 2, 3 LIMIT 20"""
            ).fetchall()
    return [list(row) for row in found]
