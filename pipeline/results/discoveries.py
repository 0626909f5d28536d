"""How many explanations of a run do better than explanations of other units, once it is taken into account how many were tried."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.execution.stage import MethodReport
from pipeline.schemas import NULL_UNITS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LEVEL = 0.05
"""False discovery rate: of the explanations that are said to do better, this share may do so by chance."""


@dataclass(frozen=True)
class Discoveries:
    """The p-values of one table of scores, or of one way in which its explanations were made and simulated."""

    methods: dict[str, str]
    """Explainer, and simulator where the table tells it."""
    tested: int
    """Explanations with a p-value."""
    found: int
    """Those that remain at the false discovery rate of LEVEL (Benjamini and Hochberg 1995)."""
    controls: int | None
    """The fewest controls behind a p-value, where the table tells; none can be below 1 / (1 + controls)."""
    setting: str
    """What sets their number, where the method has such a setting."""

    @property
    def sentence(self) -> str:
        """All of it in words."""
        said = f"{self.found} of {self.tested} do better than their controls, at a false discovery rate of {LEVEL:.0%} (Benjamini-Hochberg)"
        return said + (f"; {self.limit}" if self.limit else "")

    @property
    def limit(self) -> str:
        """What so few controls cannot show, in words; empty where they can show all."""
        if self.controls is None or self.found == self.tested:
            return ""
        least = 1 / (1 + self.controls)
        words = f"with {self.controls} controls no p-value can be below {least:.3f}"
        more = f"; raise {self.setting}" if self.setting else ""
        needed = math.ceil(self.tested * least / LEVEL - 1e-9)
        if needed > self.tested:
            return f"{words}, so none can be found{more}"
        return f"{words}, so none is found unless {needed} do better than all of theirs{more}" if needed > 1 else ""


def discoveries(connection: "DuckDBPyConnection", method: MethodReport) -> list[Discoveries]:
    """Those of a table of scores, by explainer and simulator; empty where it has no p-values."""
    name = method.numbers.get("p_value")
    if name is None:
        return []
    columns = {row[0] for row in connection.sql(f"DESCRIBE {method.table}").fetchall()}
    by = ", ".join(column for column in ("explainer", "simulator") if column in columns)
    controls = f"min({count})" if (count := method.numbers.get("controls")) in columns else "NULL"
    rows: list[dict[str, Any]] = (
        connection.sql(
            f"""SELECT {by}, list({name}) AS p, {controls} AS controls FROM {method.table}
                WHERE {name} IS NOT NULL AND module <> '{NULL_UNITS}' GROUP BY {by} ORDER BY {by}"""
        )
        .to_arrow_table()
        .to_pylist()
    )
    return [_tested(row, method.controls) for row in rows]


def _tested(row: dict[str, Any], setting: str) -> Discoveries:
    from scipy.stats import false_discovery_control

    p_values, controls = row.pop("p"), row.pop("controls")
    return Discoveries(row, len(p_values), int((false_discovery_control(p_values) <= LEVEL).sum()), controls, setting)
