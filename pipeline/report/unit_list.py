"""The list of all explained units, with what it is searched, filtered and sorted by."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.execution.stage import MethodReport
from pipeline.report.data_scripts import packed
from pipeline.results.run_folder import RunFolder
from pipeline.schemas import NULL_UNITS

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("corpus", "score", "low", "high", "random", "control", "lookup", "p_value")
"""Numbers of a unit in the list; `MethodReport.numbers` names the columns they come from."""
UNITS_IN_FILE = 16
"""Units whose data is in one file, so that the file of one unit is small."""


@dataclass(frozen=True)
class UnitList:
    """One row for each unit, polarity, explainer, simulator and method, in the order of modules and indices."""

    rows: "pd.DataFrame"
    """Columns: method, module, index, polarity, explainer, simulator, candidate, text, status, density, file and NUMBERS."""

    def files(self) -> list[tuple[str, list[int]]]:
        """The units of each file of data: a module and indices, rising."""
        found = self.rows.groupby("file", sort=True)
        return [(str(group["module"].iloc[0]), sorted({int(i) for i in group["index"]})) for _, group in found]

    def as_json(self) -> dict[str, Any]:
        """By columns: words are numbers of the entries of a list, numbers are packed as 32-bit floats."""
        rows, shown = self.rows, {"rows": len(self.rows), "text": self.rows["text"].fillna("").tolist()}
        for name in ("module", "polarity", "explainer", "simulator", "status"):
            words = list(dict.fromkeys(rows[name].fillna("").tolist()))
            codes = rows[name].fillna("").map({word: code for code, word in enumerate(words)})
            shown[name] = {"words": words, "codes": packed(codes.to_numpy(np.uint16))}
        for name in ("index", "file", "method"):
            shown[name] = packed(rows[name].to_numpy(np.int32))
        for name in (*NUMBERS, "density"):
            shown[name] = packed(rows[name].to_numpy(np.float32))
        return shown


def list_units(run: RunFolder, methods: Sequence[MethodReport]) -> UnitList:
    """The units that the methods of a run have explained, each with the candidate that was chosen."""
    import pandas as pd

    parts = [_of_method(run, number, method) for number, method in enumerate(methods)]
    rows = pd.concat(parts, ignore_index=True)
    rows["order"] = rows["module"].map({name: at for at, name in enumerate(sorted(set(rows["module"]), key=in_order))})
    rows = rows.sort_values(
        ["order", "index", "polarity", "method", "explainer", "simulator", "candidate"],
        kind="stable",
        ignore_index=True,
    )
    units = rows[["order", "index"]].drop_duplicates()
    place = units.groupby("order").cumcount() // UNITS_IN_FILE
    units["file"] = (units["order"].diff().ne(0) | place.diff().ne(0)).cumsum() - 1
    return UnitList(rows.merge(units, on=["order", "index"]).drop(columns="order"))


def in_order(module: str) -> list[tuple[int, int, str]]:
    """Sorts names as people do: layers.2 before layers.10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", module)]


def _of_method(run: RunFolder, number: int, method: MethodReport) -> "pd.DataFrame":
    """The chosen rows of a method's table of scores: one for each simulator, else the first candidate."""
    there = run.dataset(method.table).schema.names
    known = {name: column for name, column in method.numbers.items() if column in there}
    numbers = ", ".join(f"CAST({known.get(name, 'NULL')} AS FLOAT) AS {name}" for name in NUMBERS)
    density, join = "NULL", ""
    simulated = "simulator" in there
    simulator, kept = ("simulator", "simulator, candidate") if simulated else ("''", "NULL")
    if "units" in run.tables:
        density = "CASE polarity WHEN '-' THEN units.density_negative ELSE units.density END"
        join = 'LEFT JOIN units USING (module, "index")'
    return run.sql(
        f"""SELECT {number} AS method, module, "index", polarity, explainer, {simulator} AS simulator, candidate, text, s.status, {numbers},
                   CAST({density} AS FLOAT) AS density
            FROM {method.table} s {join} WHERE s.status <> 'not_selected' AND module <> '{NULL_UNITS}'
            QUALIFY row_number() OVER (PARTITION BY module, "index", polarity, explainer, {kept} ORDER BY candidate) = 1"""
    ).df()
