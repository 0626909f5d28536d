"""The same units in other runs: what runs beside this one, on the same subject, say of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.execution.stage import MethodReport
from pipeline.report.unit_list import UnitList, list_units
from pipeline.results.run_folder import RunFolder
from pipeline.storage.stores import metadata_of

if TYPE_CHECKING:
    pass

SUBJECT = ("revision", "weights", "paths", "sources")
"""What tells subjects apart, among the settings that recording keeps in the footers of its files."""
COLUMNS = {
    "run": str,
    "method": str,
    "polarity": str,
    "explainer": str,
    "text": str,
    "score": float,
    "low": float,
    "high": float,
}


def in_other_runs(run: RunFolder, units: UnitList, methods: Sequence[MethodReport]) -> pa.Table:
    """Explanations of the listed units in the runs of the same folder that recorded the same subject.

    Returns:
        module, index and COLUMNS.
    """
    import pandas as pd

    keys = ["module", "index"]
    listed = units.rows[keys].drop_duplicates()
    found = [
        list_units(other, used)
        .rows.merge(listed, on=keys)
        .assign(run=other.root.name)
        .replace({"method": _names(used)})
        for other in _beside(run)
        if (used := [method for method in methods if method.table in other.tables])
    ]
    rows = pd.concat(found) if found else pd.DataFrame(columns=[*keys, *COLUMNS])
    return pa.Table.from_pandas(rows[[*keys, *COLUMNS]].astype({"index": "int64", **COLUMNS}), preserve_index=False)


def _beside(run: RunFolder) -> list[RunFolder]:
    own = run.root.resolve()
    subject = _subject(own)
    others = (folder for folder in sorted(own.parent.iterdir()) if folder.is_dir() and folder != own)
    return [RunFolder(folder) for folder in others if subject and _subject(folder) == subject]


def _subject(root: Path) -> dict[str, Any] | None:
    """What identifies the model that a run recorded; None where nothing tells."""
    for path in sorted((root / "_partials" / "units").glob("part-*.parquet"))[:1]:
        settings = json.loads((metadata_of(path).metadata or {}).get(b"inputs", b"{}")).get("settings", {})
        return {name: settings.get(name) for name in SUBJECT} if settings.get("revision") else None
    return None


def _names(methods: Sequence[MethodReport]) -> dict[int, str]:
    return {number: method.score for number, method in enumerate(methods)}
