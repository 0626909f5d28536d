"""Move away what is wrong in a run, so that the next run makes exactly that again. Nothing is deleted.

What was made from it stays: the next run compares what was read then with what is there now, and makes again what differs.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import typer

from pipeline.commands.verify import DAMAGED, Verified, verify
from pipeline.errors import UserError
from pipeline.execution.stage import Stage
from pipeline.storage.atomic_files import disk_errors_told
from pipeline.storage.stores import is_remote
from pipeline.storage.tables import Tables, is_pruned
from pipeline.storage.temporary_names import remove_leftovers
from pipeline.terminal_text import safe_lines

SHOWN = 3
"""Names of files that are listed with one reason."""


@dataclass(frozen=True)
class Removal:
    """A file that is moved away."""

    path: Path
    reason: str


def repair_run(root: Path, stages: Mapping[str, Stage], run_file: str) -> None:
    """Move the damaged files of a run into its folder `_damaged`, say which and why, and what makes them again.

    Args:
        run_file: of the run, as the command line takes it; empty where it is not known.

    Raises:
        UserError: there is no such run, or its folder cannot be written.
    """
    found = verify(root, stages)
    for folder in {path.parent for path in found.left}:
        remove_leftovers(folder)
    removals = plan_repair(found, stages)
    if not removals:
        typer.echo(f"nothing is wrong with the {found.files:,} files in {root}; nothing was moved")
        return
    target = move_away(root, removals)
    for (folder, reason), group in groupby(removals, key=lambda one: (one.path.parent.relative_to(root), one.reason)):
        names = [removal.path.name for removal in group]
        typer.echo(safe_lines(f"{folder}: {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}: {reason}"))
    typer.echo(
        f"{len(removals):,} files were moved to {target}. Make them again with: python -m pipeline run --config {run_file or 'RUN_FILE'}"
    )
    if any("imported" in footer.inputs.get("settings", {}) for footer in found.footers.values()):
        typer.echo("What was imported cannot be made again; import it anew, into another folder")


def plan_repair(found: Verified, stages: Mapping[str, Stage]) -> list[Removal]:
    """The files to move, those made last first: whatever is left at any moment is a run that has not come that far.

    A damaged file takes the other tables of its shard with it. Where a shard is made from rows that were removed once they were merged,
    those are made again too.
    """
    plan = _Plan(found, stages)
    for path in sorted(found.damaged):
        plan.add_damaged(path)
    for stage in reversed(list(stages.values())):
        plan.add_removed_rows(stage)
    order = {table.path: place for place, stage in enumerate(stages.values()) for table in stage.writes}
    paths = sorted(plan.reasons, key=lambda path: (-order.get(plan.folder(path), len(order)), path))
    return [Removal(path, plan.reasons[path]) for path in paths]


class _Plan:
    """Which files are to be moved, and why."""

    def __init__(self, found: Verified, stages: Mapping[str, Stage]) -> None:
        self._found, self._tables = found, Tables(found.root)
        self._writers = {table.path: stage for stage in stages.values() for table in stage.writes}
        self._bad: set[tuple[str, str]] = set()
        """Stages and shards."""
        self.reasons: dict[Path, str] = {}

    def folder(self, path: Path) -> str:
        return path.parent.relative_to(self._found.root).as_posix()

    def add_damaged(self, path: Path) -> None:
        stage = self._writers.get(self.folder(path))
        self.reasons[path] = next(problem.text for problem in self._found.problems if problem.path == path)
        if stage:
            self._add(stage, path.stem, f"belongs to {path.relative_to(self._found.root)}")

    def add_removed_rows(self, stage: Stage) -> None:
        """All of the stages whose rows a bad shard of a stage is made from, where these were removed."""
        bad = sorted(shard for name, shard in self._bad if name == stage.name)
        for writer in dict.fromkeys(self._writers.values()) if bad else ():
            files = [path for table in writer.writes if table.temporary for path in self._tables.files(table)]
            if writer.name in self._upstream(stage) and any(map(_is_pruned, files)):
                for name in self._shards(writer):
                    self._add(writer, name, f"holds no rows any more, which {stage.name} {bad[0]} is made from")

    def _add(self, stage: Stage, shard: str, reason: str) -> None:
        self._bad.add((stage.name, shard))
        for table in stage.writes:
            if (path := self._tables.file(table, shard)).exists():
                self.reasons.setdefault(path, reason)

    def _shards(self, stage: Stage) -> list[str]:
        return sorted({path.stem for table in stage.writes for path in self._tables.files(table)})

    def _upstream(self, stage: Stage) -> set[str]:
        """Names of the stages that a stage has read, by the footers of its files."""
        own = [self._found.footers.get(path) for table in stage.writes for path in self._tables.files(table)]
        named = {name for footer in own if footer for name in (*footer.inputs.get("upstream", {}), *footer.read)}
        return named or (set(stage.reads) if isinstance(stage.reads, tuple) else set())


def _is_pruned(path: Path) -> bool:
    try:
        return is_pruned(path)
    except (OSError, ValueError):  # damaged
        return False


def move_away(root: Path, removals: list[Removal]) -> Path:
    """Move files into a new folder of a run's folder `_damaged`, one after the other, as they lie in the run's folder.

    Raises:
        UserError: the folder cannot be written.
    """
    target = root / DAMAGED / time.strftime("%Y%m%d-%H%M%S")
    for removal in removals:
        new = target / removal.path.relative_to(root)
        with disk_errors_told(new):
            if not is_remote(new):
                new.parent.mkdir(parents=True, exist_ok=True)
            if new.exists():
                raise UserError(f"{new} is there already; move it away, then repair again")
            removal.path.rename(new)
    return target
