"""Read what another program has recorded and explained into a run, so that it can be looked at, simulated and scored."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from pipeline.config.run_config import Run
from pipeline.config.section import choice, summaries
from pipeline.errors import UserError, nearest
from pipeline.execution.survey import Stages
from pipeline.imports import IMPORTS
from pipeline.imports.imported_run import run_file, write_tables, writers
from pipeline.storage.folders import new_folder

RUN_FILE = "_run.toml"


def import_run(name: str, folder: Path, root: Path, stages: Stages) -> str:
    """Write the run's folder, as a whole or not at all, with a run file in it; says how to go on.

    Args:
        name: of the format.
        root: the folder of the run to be.

    Raises:
        UserError: there is no such format, the folder is not of that format or explains nothing, or `root` is there already
            or no name of a run.
    """
    if name not in IMPORTS:
        known = "".join(f"\n  {one}: {summary}" for one, summary in summaries(IMPORTS).items())
        raise UserError(f"there is no format {name!r}; {nearest(name, list(IMPORTS))}{known}")
    try:
        Run(name=root.name)
    except ValidationError:
        raise UserError(
            f"--to {root}: {root.name!r} cannot be the name of a run; use letters, digits, '.', '_' and '-'"
        ) from None
    with new_folder(root) as made:
        units = choice(IMPORTS, name).read(folder)
        explained = write_tables(units, made, name, _content(folder), writers(stages.values()))
        if not explained:
            raise UserError(f"{folder} holds no explanation of any unit, so there is nothing to score")
        (made / RUN_FILE).write_text(run_file(root, name, explained), encoding="utf-8")
    count = sum(map(len, explained.values()))
    return f"{count:,} explained units are in {root}\nSimulate and score them: python -m pipeline run --config {root / RUN_FILE}"


def _content(folder: Path) -> str:
    """Identifies the files of a folder, by their names and sizes."""
    files = [
        (str(path.relative_to(folder)), path.stat().st_size) for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
