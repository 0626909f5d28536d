"""Read what the partials say about a range of units: the row groups that hold them, and no others."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.pruning import rows_by_module
from pipeline.storage.tables import Tables
from stages.record.partials import BLOCK, BY_BLOCK, PARTIAL_UNITS, PARTIALS


@dataclass(frozen=True)
class _Groups:
    """The row groups of a file, as their statistics describe them."""

    file: pq.ParquetFile
    modules: list[tuple[str, str]]
    """First and last module, by name."""
    first: list[int]
    last: list[int]
    """Smallest and largest index."""


class Partials:
    """All partial tables of a run, with their footers held in memory."""

    def __init__(self, tables: Tables) -> None:
        names = [path.stem for path in tables.files(PARTIAL_UNITS)]
        self._parts = [{table.name: _open(tables.file(table, name)) for table in PARTIALS} for name in names]

    def about(self, module: str, start: int, stop: int) -> Iterator[dict[str, pa.Table]]:
        """For each part of the corpus the rows about the units start..stop of a module, by table name.

        The next part is read while the present one is worked at.
        """
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[dict[str, pa.Table]] | None = None
            for part in self._parts:
                present, ahead = ahead, reader.submit(_read, part, module, start, stop)
                if present is not None:
                    yield present.result()
            if ahead is not None:
                yield ahead.result()


def widths(tables: Tables) -> dict[str, int]:
    """Units of each module, from the first partial alone."""
    return rows_by_module(tables.files(PARTIAL_UNITS)[0])


def _open(path: Path) -> _Groups:
    file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    names = file.schema_arrow.names
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    module, index = names.index("module"), names.index("index")
    modules = [group.column(module).statistics for group in groups]
    indices = [group.column(index).statistics for group in groups]
    return _Groups(
        file,
        [(statistics.min, statistics.max) for statistics in modules],
        [statistics.min for statistics in indices],
        [statistics.max for statistics in indices],
    )


def _read(part: dict[str, _Groups], module: str, start: int, stop: int) -> dict[str, pa.Table]:
    return {name: _rows(name, groups, module, start, stop) for name, groups in part.items()}


def _rows(name: str, groups: _Groups, module: str, start: int, stop: int) -> pa.Table:
    first = start - start % BLOCK if name in BY_BLOCK else start
    everything = zip(groups.modules, groups.first, groups.last, strict=True)
    wanted = [
        number
        for number, ((low, high), least, most) in enumerate(everything)
        if low <= module <= high and least < stop and most >= first
    ]
    rows = groups.file.read_row_groups(wanted)
    pure = all(
        groups.modules[number] == (module, module) and first <= groups.first[number] and groups.last[number] < stop
        for number in wanted
    )
    if pure:
        return rows
    index = rows["index"]
    inside = pc.and_(pc.greater_equal(index, first), pc.less(index, stop))
    return rows.filter(pc.and_(pc.equal(rows["module"], module), inside))
