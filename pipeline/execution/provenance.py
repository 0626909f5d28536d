"""How a run was made, in one JSON file beside its tables: the run file, the machines, and what each stage took.

All of it is worked out from the files of the run, so whichever worker writes it last writes what all have done.
"""

import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.frozen_run_file import as_toml, freeze
from pipeline.execution.stage import Stage
from pipeline.execution.this_machine import machine_name, this_machine
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.stores import files_in, metadata_of, open_parquet, states
from pipeline.storage.tables import Tables

FILE = "provenance.json"
"""In the run's folder."""
MACHINES = "_machines"
"""Folder in the run's folder with a file for each machine that worked on it."""
FORMAT = 1
"""Raised where the meaning of a key changes."""
SPENT = ("model", "prompt_tokens", "completion_tokens")
"""Columns of tables that count tokens of language models."""
KEYS = {"run_file": dict, "left_out": list, "paths_from": str, "machines": list, "stages": list}
Json = dict[str, Any]


def keep_provenance(config: RunConfig, stages: Mapping[str, Stage]) -> None:
    """Write RUN/provenance.json anew, and note this machine. Raises UserError: the disk is full or cannot be written."""
    machine = config.root / MACHINES / f"{machine_name()}.json"
    if not machine.exists():
        _write(machine, this_machine())
    taking_part = [stage for stage in stages.values() if stage.takes_part(config)]
    found = {
        "format": FORMAT,
        "name": config.run.name,
        "seed": config.run.seed,
        **freeze(config),
        "machines": [json.loads(path.read_text(encoding="utf-8")) for path in files_in(machine.parent, "[!.]*.json")],
        "stages": [entry for stage in taking_part if (entry := _stage(stage, Tables(config.root)))],
    }
    path = config.root / FILE
    if not path.exists() or path.read_text(encoding="utf-8") != _text(found):
        _write(path, found)


def read_provenance(root: Path) -> Json | None:
    """What is kept of how a run was made; None where nothing is. Raises UserError: the file is none of these."""
    path = root / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    is_known = isinstance(found, dict) and found.get("format") == FORMAT
    if not is_known or not all(isinstance(found.get(name), kind) for name, kind in KEYS.items()):
        raise UserError(f"{path} does not say how a run was made; delete it, and make run writes it anew")
    return dict(found)


def shown_provenance(root: Path) -> Json | None:
    """The same for others to see: the run file as TOML, and no folder of this machine. Errors as of `read_provenance`."""
    found = read_provenance(root)
    if found is None:
        return None
    del found["paths_from"]
    return {**found, "run_file": as_toml(found["run_file"])}


def _text(value: Json) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _write(path: Path, value: Json) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(_text(value), encoding="utf-8")


def _stage(stage: Stage, tables: Tables) -> Json | None:
    """What the files of a stage say; None where it has made none."""
    files = {table.name: tables.files(table) for table in stage.writes}
    said = {
        name: [one for path, now in zip(paths, states(paths), strict=True) if (one := _of_file(path, now))]
        for name, paths in files.items()
    }
    last = said[stage.writes[-1].name]
    if not last:
        return None
    tokens: dict[str, list[int]] = {}
    for one in (one for entries in said.values() for one in entries):
        for model, read, written in one["tokens"]:
            spent = tokens.setdefault(model, [0, 0])
            spent[0] += read
            spent[1] += written
    return {
        "name": stage.name,
        "shards": len(last),
        "seconds": round(sum(one["seconds"] for one in last), 3),
        "rows": {
            table.name: sum(one["rows"] for one in said[table.name]) for table in stage.writes if not table.temporary
        },
        "failed_rows": sum(one["failed"] for entries in said.values() for one in entries),
        "tokens": {model: {"read": read, "written": written} for model, (read, written) in sorted(tokens.items())},
        "commits": sorted({one["commit"] for one in last}),
        "profiles": [json.loads(text) for text in sorted({one["profile"] for one in last} - {"{}"})],
    }


@lru_cache(maxsize=100_000)
def _of_file(path: Path, now: Hashable) -> Json | None:
    """What the footer of a file says, and the tokens that its rows count; in each state a file is read once."""
    if now is None:  # another worker has discarded it
        return None
    metadata = metadata_of(path)
    said = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items() if key != b"ARROW:schema"}
    names = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    return {
        "rows": metadata.num_rows,
        "failed": int(said.get("failed", 0)),
        "seconds": float(said.get("seconds", 0)),
        "commit": said.get("git_commit", "unknown"),
        "profile": said.get("profile", "{}"),
        "tokens": _tokens(path) if names.issuperset(SPENT) else [],
    }


def _tokens(path: Path) -> list[tuple[str, int, int]]:
    """Model, tokens read and tokens written, of each language model that rows name."""
    with open_parquet(path) as file:
        rows = file.read(columns=list(SPENT))
    rows = rows.filter(pc.not_equal(rows["model"], ""))
    sums = rows.group_by("model").aggregate([(name, "sum") for name in SPENT[1:]])
    return [(row["model"], *(row[f"{name}_sum"] or 0 for name in SPENT[1:])) for row in sums.to_pylist()]
