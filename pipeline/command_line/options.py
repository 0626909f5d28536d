"""What all commands share: their options, and the run file that they load."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.run import check_methods
from pipeline.config import RunConfig
from pipeline.config.run_file import load_config, paths_from
from pipeline.execution.frozen_run_file import FrozenRun, thaw
from pipeline.execution.provenance import read_provenance
from pipeline.execution.survey import Stages
from pipeline.imports import IMPORTED
from pipeline.imports.imported_stages import stages_of
from stages import STAGES
from stages.settings import SECTIONS

GROUPS = list(dict.fromkeys(name.split(".")[0] for name in STAGES))
"""The stages as the command line names them: record.scan and record.merge are both `record`."""

Config = Annotated[str, typer.Option("--config", "-c", help="run file (TOML), or the name of a preset")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="SECTION.SETTING=VALUE instead of the run file's; can be given several times"),
]
Part = Annotated[
    str,
    typer.Option(
        "--shard",
        help="I/N: compute every N-th shard, from the I-th on (from 0); auto: as the tasks of a Slurm array or step are numbered; "
        "without it, workers share all shards by claims",
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="wait for shards that other workers are at work on")]
Redo = Annotated[str, typer.Option(help="discard what this stage and those after it made, then run")]
Only = Annotated[bool, typer.Option("--only", help="run this stage alone, not those that it needs")]
Folder = Annotated[str, typer.Option("--run", help="folder of a run, instead of a run file")]
Folders = Annotated[
    list[str] | None, typer.Option("--run", help="folder of a run, instead of a run file; can be given several times")
]
Format = Annotated[str, typer.Option(help="table, csv, json (lines) or parquet")]


def load_run(path: str, changes: list[str] | None = None) -> RunConfig:
    """The run file; from here on relative paths start from its folder, and so do imports of black boxes."""
    config = load_config(path, SECTIONS, changes or ())
    check_methods(config, STAGES)
    _work_from(Path(config.run.paths_from) if config.run.paths_from else paths_from(path))
    return config


def kept_run(root: Path, changes: list[str] | None = None) -> FrozenRun | None:
    """The run file that a run was made with, by what is kept in its folder; None where nothing is.

    Raises:
        UserError: it cannot be read any more.
    """
    kept = read_provenance(root)
    return None if kept is None else thaw(kept, root, SECTIONS, changes or ())


def load_kept_run(root: Path, changes: list[str] | None = None) -> FrozenRun | None:
    """The same, and from here on relative paths start where they did, if that folder is there."""
    found = kept_run(root, changes)
    if found is not None and found.paths_from.is_dir():
        _work_from(found.paths_from)
    return found


def _work_from(folder: Path) -> None:
    os.chdir(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def stages_of_run(config: RunConfig, redo: str = "") -> Stages:
    """The stages of a run; in an imported one some are finished, and cannot be run anew."""
    return stages_of(config.root, STAGES, redo) if config.corpus.source == IMPORTED else STAGES
