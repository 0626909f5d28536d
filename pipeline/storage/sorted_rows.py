"""Rows of large sorted files by a number: the row groups that can hold it are found by their statistics, at once for many numbers.

pyarrow weighs every row group against a filter each time that it reads, and reads all of them for a list of more than 50 numbers. So
whoever reads part after part of a file that grows would take the square of its size.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.dataset as ds

Ints = npt.NDArray[np.int64]


class _File(NamedTuple):
    """The G row groups of a file."""

    fragment: "ds.ParquetFileFragment"
    smallest: Ints
    largest: Ints
    """(G,) of the column."""
    modules: npt.NDArray[np.str_]
    """(G,) the module that all rows of a group are about; empty where they are about several or none."""


class SortedRows:
    """The files of a table with their footers."""

    def __init__(self, source: "ds.FileSystemDataset", column: str) -> None:
        """column: of whole numbers."""
        self._source, self.column = source, column
        self._files = [_groups(fragment, column) for fragment in source.get_fragments()]

    def read(
        self, numbers: npt.ArrayLike, where: Any, columns: Sequence[str] | None = None, module: str = ""
    ) -> pa.Table:
        """The rows that fulfil a pyarrow expression, of the row groups that can hold one of the numbers.

        Args:
            numbers: in rising order.
            module: that all wanted rows are about, where they are about one.
        """
        wanted, found = np.asarray(numbers, np.int64), []
        for file in self._files:
            before, after = np.searchsorted(wanted, file.smallest), np.searchsorted(wanted, file.largest, "right")
            may_hold = before < after
            if module:
                may_hold &= (file.modules == module) | (file.modules == "")
            if may_hold.any():
                part = file.fragment.subset(row_group_ids=np.flatnonzero(may_hold).tolist())
                found.append(part.to_table(self._source.schema, columns=columns and list(columns), filter=where))
        if found:
            return pa.concat_tables(found)
        empty = self._source.schema.empty_table()
        return empty.select(list(columns)) if columns else empty


def _groups(fragment: "ds.ParquetFileFragment", column: str) -> _File:
    fragment.ensure_complete_metadata()
    metadata = fragment.metadata
    names = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    ends = {
        name: [_ends(metadata.row_group(number).column(names.index(name))) for number in range(metadata.num_row_groups)]
        for name in (column, "module")
        if name in names
    }
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    numbers = [(least, most) if pair is None else pair for pair in ends[column]]
    modules = [pair[0] if pair and pair[0] == pair[1] else "" for pair in ends.get("module", [None] * len(numbers))]
    smallest, largest = np.array(numbers, np.int64).reshape(-1, 2).T
    return _File(fragment, smallest, largest, np.array(modules, dtype=np.str_))


def _ends(chunk: Any) -> tuple[Any, Any] | None:
    """The smallest and the largest value of a column in a row group; None where that is not known."""
    statistics = chunk.statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None
