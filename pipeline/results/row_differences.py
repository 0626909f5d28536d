"""Whether two runs have the same rows: every value of every table, floats to the last digit, in whatever files they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables

Flags = npt.NDArray[np.bool_]
LONGEST = 60
"""Characters of a value in a message."""


@dataclass(frozen=True)
class TableComparison:
    """How a table of one run compares with that of another one."""

    table: str
    rows: int
    """Of the first run."""
    differences: list[str]
    """In words; none where all rows are equal."""


def compare_rows(first: Path, second: Path, tables: Sequence[TableSchema]) -> Iterator[TableComparison]:
    """Compare tables of the runs in two folders. Of a table about units one module at a time is in memory."""
    for table in tables:
        ours, theirs = Tables(first), Tables(second)
        compared = [
            _compare(ours.read(table, where), theirs.read(table, where), name)
            for name, where in _parts(table, ours, theirs)
        ]
        yield TableComparison(table.name, ours.count(table), [line for lines in compared for line in lines])


def _parts(table: TableSchema, ours: Tables, theirs: Tables) -> list[tuple[str, Any]]:
    """Name and condition of the parts of a table that are compared one after the other."""
    if "module" not in table.schema.names:
        return [("", None)]
    modules = {
        name
        for tables in (ours, theirs)
        for name in pc.unique(tables.read(table, columns=["module"])["module"]).to_pylist()
    }
    return [(f"{name}: ", pc.field("module") == name) for name in sorted(modules)]


def _compare(one: pa.Table, other: pa.Table, part: str) -> list[str]:
    if one.num_rows != other.num_rows:
        return [f"{part}{one.num_rows:,} rows, and {other.num_rows:,} when made again"]
    one, other = _in_order(one), _in_order(other)
    differing = {name: differ(one[name].combine_chunks(), other[name].combine_chunks()) for name in one.column_names}
    differing = {name: rows for name, rows in differing.items() if rows.any()}
    if not differing:
        return []
    rows = np.flatnonzero(np.logical_or.reduce(list(differing.values())))
    at = int(rows[0])
    place = ", ".join(f"{name} {_shown(one[name][at])}" for name in one.column_names if _is_key(one, name))
    values = ", ".join(
        f"{name} {_shown(one[name][at])} -> {_shown(other[name][at])}" for name, found in differing.items() if found[at]
    )
    return [
        f"{part}{len(rows):,} of {one.num_rows:,} rows differ, in {', '.join(differing)}; the first ({place}): {values}"
    ]


def _in_order(rows: pa.Table) -> pa.Table:
    """Rows in an order that does not depend on files: by texts and whole numbers, then by floats."""
    plain = [
        field for field in rows.schema if not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)
    ]
    names = [field.name for field in sorted(plain, key=lambda field: pa.types.is_floating(field.type))]
    return rows.sort_by([(name, "ascending") for name in names]) if names else rows


def differ(one: pa.Array, other: pa.Array) -> Flags:
    """Which values differ; null equals null, NaN equals NaN.

    Args:
        one, other: (N,) of one type.

    Returns:
        (N,) True where they differ.
    """
    found: Flags = np.asarray(pc.not_equal(one.is_null(), other.is_null()))
    kind = one.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = [np.asarray(pc.fill_null(pc.list_value_length(array), 0)) for array in (one, other)]
        found |= lengths[0] != lengths[1]
        same = np.flatnonzero(~found)
        inner = [pc.list_flatten(array.take(pa.array(same))) for array in (one, other)]
        rows = np.repeat(same, lengths[0][same])
        found[rows[differ(*inner)]] = True
    elif pa.types.is_struct(kind):
        for field in kind:
            found |= differ(pc.struct_field(one, field.name), pc.struct_field(other, field.name))
    elif pa.types.is_floating(kind):
        values = [array.to_numpy(zero_copy_only=False) for array in (one, other)]
        found |= (values[0] != values[1]) & ~(np.isnan(values[0]) & np.isnan(values[1]))
    else:
        found |= np.asarray(pc.fill_null(pc.not_equal(one, other), False))
    return found


def _is_key(rows: pa.Table, name: str) -> bool:
    """Whether a column says which row it is: one of the leading texts and whole numbers of the table."""
    for field in rows.schema:
        if pa.types.is_nested(field.type) or pa.types.is_floating(field.type) or field.name in ("text", "status"):
            return False
        if field.name == name:
            return True
    return False


def _shown(value: pa.Scalar) -> str:
    text = repr(value.as_py())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
