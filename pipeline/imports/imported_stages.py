"""The stages of an imported run: those before the last imported one are finished with what was imported, and the others can run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context, EstimateHints, Rows, Shard, Stage
from pipeline.execution.survey import Stages
from pipeline.storage.footers import read_footer
from pipeline.storage.tables import Tables


def stages_of(root: Path, stages: Stages, redo: str = "") -> Stages:
    """The stages as they are for the imported run in a folder.

    Args:
        redo: a stage, or a group of stages, that is to be run anew.

    Raises:
        UserError: a file there is broken, or what is to be run anew was imported.
    """
    imported = [place for place, stage in enumerate(stages.values()) if _is_imported(root, stage)]
    if not imported:
        return stages  # a corpus of that name
    _refuse_redo(redo, root, stages)
    return {
        name: _finished(root, stage) if place <= imported[-1] else stage
        for place, (name, stage) in enumerate(stages.items())
    }


def _refuse_redo(redo: str, root: Path, stages: Stages) -> None:
    """Raises UserError where a stage or a group of stages to be run anew has nothing to run from."""
    for stage in stages.values():
        if redo in (stage.name, stage.name.split(".")[0]) and _is_imported(root, stage):
            raise UserError(
                f"--redo {redo}: what {root} holds of it was imported; import it again, into another folder"
            )


def _is_imported(root: Path, stage: Stage) -> bool:
    files = Tables(root).files(stage.writes[-1])
    return bool(files) and "imported" in read_footer(files[0]).inputs.get("settings", {})


def _finished(root: Path, stage: Stage) -> Stage:
    """A stage that has nothing left to do; what was not imported has no shards."""
    footers = {path.stem: read_footer(path) for path in Tables(root).files(stage.writes[-1])}
    nothing: Mapping[str, Any] = {"settings": {}, "version": stage.version}
    inputs = next((footer.inputs for footer in footers.values()), nothing)
    shards = [Shard(name, json.loads(footer.shard)) for name, footer in footers.items()]

    def plan(config: RunConfig, tables: Tables) -> list[Shard]:  # noqa: ARG001 - the contract of a stage
        return shards

    def process(shard: Shard, context: Context) -> Rows:
        raise UserError(
            f"{shard.name} of {stage.name} was imported into {context.config.root} and is gone; import it again"
        )

    return replace(
        stage,
        reads=(),
        settings=lambda _: dict(inputs["settings"]),
        version=inputs["version"],
        methods=lambda _: ({},),
        pool=None,
        plan=plan,
        process=process,
        check=lambda _: None,
        asks=lambda _: None,
        estimate=EstimateHints(),
    )
