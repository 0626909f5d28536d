"""Read a run again, file by file and table by table, and say what is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.kept_plan import all_plans
from pipeline.execution.series import Progress
from pipeline.execution.stage import Stage
from pipeline.execution.survey import survey
from pipeline.results.explanation_search import EMBEDDINGS
from pipeline.schemas import TableSchema
from pipeline.storage.cross_checks import compare_files
from pipeline.storage.file_checks import Problem, check_file
from pipeline.storage.footers import Footer
from pipeline.storage.tables import Tables, is_pruned
from pipeline.storage.temporary_names import leftovers
from pipeline.terminal_text import safe_lines

DAMAGED = "_damaged"
"""Folder in a run's folder that holds what was wrong and was moved away."""


@dataclass
class Verified:
    """What was found of a run."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    footers: dict[Path, Footer] = field(default_factory=dict)
    """Of the files whose footers could be read."""
    files: int = 0
    rows: int = 0
    stale: list[str] = field(default_factory=list)
    """Shards that were made from other rows than there are now, in words."""
    unfinished: list[str] = field(default_factory=list)
    """Shards that lack, in words."""
    left: list[Path] = field(default_factory=list)
    """What killed processes left."""

    @property
    def damaged(self) -> set[Path]:
        """The files that something is wrong with."""
        return {problem.path for problem in self.problems}


def verify_run(root: Path, stages: Mapping[str, Stage], config: RunConfig | None = None) -> bool:
    """Print what is wrong with the run in a folder, file by file; returns whether nothing is.

    Args:
        config: its run file, where that is known; what was made from other rows than there are now is found with it alone.

    Raises:
        UserError: there is no such run, or it was made with other settings than those of the run file.
    """
    found = verify(root, stages, config)
    for path, texts in _by_file(found.problems).items():
        typer.echo(safe_lines(f"{path}\n" + "".join(f"    {text}\n" for text in texts)), nl=False)
    for text in found.stale:
        typer.echo(f"made from other rows than there are now, the next run makes them again: {text}")
    for text in found.unfinished:
        typer.echo(f"not there, which is no damage where the run goes on: {text}")
    if found.left:
        typer.echo(
            f"{len(found.left)} temporary files of processes that are no more; the next run, or repair, removes them"
        )
    read = f"{found.files:,} files with {found.rows:,} rows in {root}"
    if found.problems:
        typer.echo(
            f"{read}: something is wrong with {len(found.damaged):,} of them. To move these away, and to learn what makes them again: "
            f"python -m pipeline repair {root}"
        )
    else:
        typer.echo(f"{read}: {'those named are out of date' if found.stale else 'nothing is wrong'}")
    return not found.problems and not found.stale


def verify(root: Path, stages: Mapping[str, Stage], config: RunConfig | None = None) -> Verified:
    """Read all files of a run, then compare them. Arguments and errors as of `verify_run`."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name that of a run, such as outputs/demo")
    found, tables = Verified(root), Tables(root)
    known = {table.path: table for stage in stages.values() for table in stage.writes} | {EMBEDDINGS.path: EMBEDDINGS}
    listed = [(table, path) for table in known.values() for path in tables.files(table)]
    listed_paths = {path for _, path in listed}
    foreign = [path for path in sorted(root.glob("[!._]*/[!._]*.parquet")) if path not in listed_paths]
    if not listed and not foreign:
        raise UserError(f"{root} holds no table; name the folder of a run, such as outputs/demo")
    size = sum(path.stat().st_size for path in [*listed_paths, *foreign])
    with tqdm(desc="verify", total=size, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for table, path in [*listed, *((None, path) for path in foreign)]:
            footer, problems = check_file(path, table)
            if footer:
                found.footers[path] = footer
                found.rows += footer.rows
            found.problems += problems
            found.files += 1
            bar.update(path.stat().st_size)
        found.problems += compare_files(*_comparable(known.values(), tables, found), bar.set_description)
    if config is not None and not found.problems:
        found.stale = [text for progress in survey(config, stages).values() for text in _stale(progress)]
    found.unfinished = [text for stage in stages.values() for text in _gaps(stage, tables)]
    found.left = [path for table in known.values() for path in leftovers(tables.folder(table))]
    return found


def _comparable(
    known: Iterable[TableSchema], tables: Tables, found: Verified
) -> tuple[dict[str, tuple[TableSchema, list[Path]]], list[str]]:
    """The tables that can be compared with their sound files, and names of those that have others."""
    whole, incomplete = {}, []
    for table in known:
        pruned = {
            path for path in tables.files(table) if table.temporary and path not in found.damaged and is_pruned(path)
        }
        files = [path for path in tables.files(table) if path not in pruned]
        sound = [path for path in files if path not in found.damaged]
        if sound:
            whole[table.name] = (table, sound)
        if len(sound) < len(files):
            incomplete.append(table.name)
    return whole, incomplete


def _stale(progress: Progress) -> list[str]:
    names = [name for series in progress.series for name in series.stale]
    return [f"{len(names):,} shards of {progress.stage.name} ({_few(names)})"] if names else []


def _gaps(stage: Stage, tables: Tables) -> list[str]:
    """Shards of a stage that are planned, or stand before its last one, and are missing in one of its tables or in all."""
    names: list[set[str]] = [{path.stem for path in tables.files(table)} for table in stage.writes]
    there: set[str] = set().union(*names)
    numbers = [int(name.removeprefix("part-")) for name in there if name.removeprefix("part-").isdecimal()]
    planned = {shard.name for plan in all_plans(tables.root, stage.name) for shard in plan.shards}
    expected = there | planned | {f"part-{number:05d}" for number in range(max(numbers, default=-1) + 1)}
    missing = sorted(expected - names[0].intersection(*names[1:]))
    return [f"{len(missing):,} shards of {stage.name} ({_few(missing)})"] if missing else []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _by_file(problems: Sequence[Problem]) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.path, []).append(problem.text)
    return dict(sorted(found.items()))
