"""Data as scripts. A page on disk may not fetch files, but it may load scripts, so each piece of data is one that calls `NG.put`."""

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
    return None if value is None else numbers(np.array([value]))[0]


def numbers(values: npt.NDArray[Any]) -> list[float | None]:
    """Numbers with DIGITS significant digits; None for what is not finite."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    sizes = np.where(known & (values != 0), np.abs(values), 1.0)
    places = DIGITS - 1 - np.floor(np.log10(sizes))
    scale = 10.0 ** np.abs(places)  # by powers of ten above 1 alone, which are exact
    with np.errstate(invalid="ignore"):
        shown = np.where(places >= 0, np.rint(values * scale) / scale, np.rint(values / scale) * scale)
    found: list[float | None] = shown.tolist()
    return found if known.all() else [one if is_known else None for one, is_known in zip(found, known, strict=True)]


def columns_of(table: pa.Table) -> dict[str, Any]:
    """A table by columns, in JSON values. A column in which all values are the same is that value, except `index`.

    A list of tokens is {field: values} of its first LISTED entries, without `token_id`.
    """
    found = {name: _plain(table[name]) for name in table.column_names}
    return {name: values if name == "index" else _once(values) for name, values in found.items()}


def _once(values: list[Any]) -> Any:
    first = values[0] if values else None
    is_same = values and not isinstance(first, (list, dict)) and all(value == first for value in values)
    return first if is_same else values


def _plain(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_floating(kind):
        return numbers(column.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) and not column.null_count:
        whole: list[Any] = column.to_numpy().tolist()
        return whole
    if pa.types.is_list(kind):
        return _lists(column, pa.types.is_struct(kind.value_type))
    plain: list[Any] = column.to_pylist()
    return plain


def _lists(column: pa.ChunkedArray, is_struct: bool) -> list[Any]:
    """Rows of lists; of structs one list for each field."""
    if is_struct:
        column = pc.list_slice(column, 0, LISTED)
    rows = pa.chunked_array(column.chunks, column.type).combine_chunks()
    lengths, flat = rows.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), rows.flatten()
    ends = [0, *np.cumsum(lengths).tolist()]
    fields = {"": flat}
    if is_struct:
        names = [field.name for field in flat.type if field.name != "token_id"]
        fields = {name: flat.field(name) for name in names}
    shown = {name: _plain(pa.chunked_array([values])) for name, values in fields.items()}
    parts = [{name: values[start:stop] for name, values in shown.items()} for start, stop in pairwise(ends)]
    made = [part if is_struct else part[""] for part in parts]
    return [one if is_there else None for one, is_there in zip(made, rows.is_valid().to_pylist(), strict=True)]
