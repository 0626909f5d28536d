"""Make a run again from the run file that its folder keeps, with the replies of the first time, and compare the two row by row."""

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.commands.run import run_pipeline
from pipeline.config import RunConfig
from pipeline.config.run_file import Sections, parse_config
from pipeline.errors import UserError
from pipeline.execution.frozen_run_file import FREE, FrozenRun
from pipeline.execution.progress import say
from pipeline.execution.survey import Stages, survey
from pipeline.imports import IMPORTED
from pipeline.llm.endpoint.stored_replies import local_replies
from pipeline.results.row_differences import compare_rows
from pipeline.schemas import EXPLANATIONS
from pipeline.storage import by_hand
from pipeline.storage.atomic_files import atomic_path, disk_errors_told, publish_once
from pipeline.storage.stores import is_remote
from pipeline.storage.tables import Tables

REPLIES, PLANS = "_replies", "_plans"
KEYS = {"key_variable", "headers"}
"""Settings of engines that only requests need."""
NOTHING = {"max_tokens_total": 1}
"""A budget that no request fits, so that nothing is sent."""


def reproduce_run(root: Path, kept: FrozenRun | None, stages: Stages, sections: Sections, target: Path) -> int:
    """Make a run again and say what differs; returns the exit code: 0 where all rows are equal, else 1.

    Nothing is sent to an endpoint: every reply has to be among those that the first run kept.

    Args:
        root: the run's folder.
        kept: its run file, as its folder keeps it.
        target: the folder to make it in; one that an earlier call began is finished.

    Raises:
        UserError: the run cannot be made again.
    """
    if kept is None:
        raise UserError(
            f"{root} does not keep its run file; run it once more with its run file, then it does: make run"
        )
    if kept.config.corpus.source == IMPORTED:
        raise UserError(f"{root} was imported, and what was imported cannot be made again; import it anew instead")
    if target.resolve() == root.resolve():
        raise UserError(f"--to {target} is the run itself; give the name of a new folder")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", target.name):
        raise UserError(f"--to {target}: a run cannot be called {target.name!r}; use letters, digits, '.', '_' and '-'")
    if kept.left_out:
        say(
            f"Not kept, as they may hold a secret: {', '.join(kept.left_out)}; put those that change rows in with --set"
        )
    config = _offline(kept.config, target, sections)
    _take_along(root, target)
    say(f"Making {root} again in {target}")
    try:
        run_pipeline(config, stages, list(stages))
    except UserError as error:
        if not any(model.base_url for model in config.language_models()):
            raise
        told = f"nothing is sent when a run is made again, so every reply has to be among those in {root / REPLIES}"
        raise UserError(f"{error}\n{target} is not finished: {told}; finish {root} first") from None
    if unfinished := [name for name, progress in survey(config, stages).items() if not progress.finished]:
        say(f"{target} is not finished: {', '.join(unfinished)}")
        return 1
    return _compare(root, target, config, stages)


def _compare(root: Path, target: Path, config: RunConfig, stages: Stages) -> int:
    taking_part = [stage for stage in stages.values() if stage.takes_part(config)]
    tables = [table for stage in taking_part for table in stage.writes if not table.temporary]
    differing = 0
    for found in compare_rows(root, target, tables):
        say(f"{found.table}: {f'all {found.rows:,} rows are equal' if not found.differences else ''}".rstrip())
        for line in found.differences:
            say(f"  {line}")
        differing += bool(found.differences)
    say(f"{root} and {target} {f'differ in {differing} tables' if differing else 'have the same rows in all tables'}")
    return 1 if differing else 0


def _offline(config: RunConfig, target: Path, sections: Sections) -> RunConfig:
    """The run file for another folder, without keys, and with a budget that lets no request through."""
    values = _without_keys(config.model_dump(mode="json"))
    values["run"] |= {"name": target.name, "folder": str(target.parent)}
    return parse_config(values | {"budget": NOTHING}, f"the run file kept for {target}", sections)


def _without_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_keys(value) if isinstance(value, Mapping) and name not in FREE else value
        for name, value in values.items()
        if not (name in KEYS and "model" in values)
    }


def _take_along(root: Path, target: Path) -> None:
    """Copy what a run does not make anew: replies of language models, explanations that people wrote and it has scored, and which
    units were in a shard together, as a run that grew has others than one that is made at once."""
    if not is_remote(target):
        with disk_errors_told(target):
            target.mkdir(parents=True, exist_ok=True)
    for file in sorted(local_replies(root / REPLIES).glob("*.sqlite")):
        copy = local_replies(target / REPLIES) / file.name
        if not copy.exists():
            with atomic_path(copy) as temporary:
                _copy_replies(file, temporary)
    for file in sorted((root / PLANS).glob("*/*.json")):
        publish_once(target / PLANS / file.parent.name / file.name, file.read_bytes())
    for name in _scored_by_hand(root):
        publish_once(target / by_hand.FOLDER / name, (root / by_hand.FOLDER / name).read_bytes())


def _copy_replies(file: Path, copy: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=1.0)) as source:
            with closing(sqlite3.connect(copy)) as taken:
                source.backup(taken)
    except sqlite3.Error as error:
        raise UserError(
            f"{file} cannot be read ({error}); let the run that works on it finish, then try again"
        ) from None


def _scored_by_hand(root: Path) -> list[str]:
    """Names of the files whose explanations are among those of the run; the others wait for its next start."""
    written = by_hand.read_by_hand(root)
    columns = ["module", "polarity", "index", "text"]
    rows = (
        Tables(root).read(EXPLANATIONS, columns=columns)
        if written
        else EXPLANATIONS.schema.empty_table().select(columns)
    )
    known = set(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return [f"{one.name}.json" for one in written if (one.module, one.polarity, one.index, one.text) in known]
