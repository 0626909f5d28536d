"""Data as scripts. A page on disk may not fetch files, but it may load scripts, so each piece of data is one that calls `NG.put`."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DIGITS = 4
"""Significant digits of numbers on the pages."""
LISTED = 20
"""Entries shown of a list of tokens."""


def as_script(name: str, value: Any, call: str = "put") -> str:
    """A script that hands a value of JSON to the pages.

    It is ASCII without `<`, so that no text of a corpus means anything to a parser of HTML or of scripts.
    """
    given = json.dumps([name, value], ensure_ascii=True, allow_nan=False, separators=(",", ":"))[1:-1]
    return f"NG.{call}({given});\n".replace("<", "\\u003c")


def write_script(folder: Path, name: str, value: Any) -> None:
    """FOLDER/NAME.js with what `as_script` makes."""
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_script(name, value), encoding="ascii")


def packed(values: npt.NDArray[Any]) -> str:
    """The bytes of an array in base64; numbers are little-endian, as browsers have them."""
    return base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode()


def rounded(value: float | None) -> float | None:
    """A number with DIGITS significant digits; None for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def columns_of(table: pa.Table) -> dict[str, list[Any]]:
    """A table by columns, in JSON values. Lists of tokens are cut after LISTED entries."""
    return {name: _plain(table[name]) for name in table.column_names}


def _plain(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_floating(kind):
        return [rounded(value) for value in column.to_pylist()]
    if pa.types.is_list(kind):
        return [None if row is None else _listed(row) for row in column.to_pylist()]
    return list(column.to_pylist())


def _listed(row: Iterable[Any]) -> list[Any]:
    entries = list(row)
    if entries and isinstance(entries[0], Mapping):
        return [{key: _number(value) for key, value in entry.items()} for entry in entries[:LISTED]]
    return [_number(value) for value in entries]


def _number(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value
