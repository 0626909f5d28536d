"""What exports know of a unit."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

Row = dict[str, Any]
BANDS = ("top", "quantile", "random", "similar", "neighbour", "fires", "quiet", "weak")


@dataclass(frozen=True)
class ExportedExemplar:
    """A sequence kept for a unit, T tokens long."""

    seq_id: int
    band: str
    split: str
    tokens: list[str]
    activations: list[float | None]
    """(T,) None where the position does not count."""

    @property
    def values(self) -> list[float]:
        """(T,) activations with 0 where the position does not count, as other formats know nothing of such positions."""
        return [value or 0.0 for value in self.activations]

    @property
    def peak(self) -> int:
        """Position of the largest activation that counts, the first one among equals."""
        return max(range(len(self.tokens)), key=lambda place: _or_lowest(self.activations[place]))


@dataclass(frozen=True)
class ExportedExplanation:
    """A published explanation of a unit."""

    text: str
    keys: Row
    """Explainer and candidate."""
    scores: dict[str, float]
    """By column of its score table, the headline first; empty where it has no score."""


@dataclass(frozen=True)
class ExportedUnit:
    """All that exports know of a unit."""

    index: int
    statistics: Row
    """Its row of the table `units`; empty where there is none."""
    weights: Row
    """Its row of the table `unit_tokens`; empty where there is none."""
    exemplars: list[ExportedExemplar]
    """By band, then by rank: `top`, `quantile`, `random`."""
    explanations: list[ExportedExplanation]
    """The best score first."""


def mirrored(statistics: Row, weights: Row) -> tuple[Row, Row]:
    """Statistics and weights of the unit whose activations are those of another one with their sign turned."""
    turned = dict(statistics)
    for name in ("mean", "skewness"):
        turned[name] = _turned(statistics.get(name))
    turned |= {"min": _turned(statistics.get("max")), "max": _turned(statistics.get("min"))}
    turned["density"], turned["density_negative"] = statistics.get("density_negative"), statistics.get("density")
    for one, other in (("quantile_boundaries", "quantile_boundaries_negative"), ("histogram_edges", "histogram_edges")):
        turned[one] = sorted(-value for value in statistics.get(other) or ())
    turned["histogram_counts"] = (statistics.get("histogram_counts") or [])[::-1]
    for one, other in (("top_tokens", "bottom_tokens"), ("bottom_tokens", "top_tokens")):
        turned[one] = _turned_entries(statistics.get(other), "mean_activation")
    sides = (("promoted", "suppressed"), ("suppressed", "promoted"))
    return turned, weights | {one: _turned_entries(weights.get(other), "value") for one, other in sides}


def _turned(value: float | None) -> float | None:
    return None if value is None else -value


def _turned_entries(entries: Iterable[Row] | None, name: str) -> list[Row]:
    return [entry | {name: _turned(entry[name])} for entry in entries or ()]


def _or_lowest(value: float | None) -> float:
    return -inf if value is None else value


def write_json(path: Path, value: Any) -> None:
    """One line of JSON, in ASCII, as some readers cut lines at other characters than the line feed. NaN is an error."""
    path.write_text(json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n", encoding="ascii")
