"""The partial tables of a run, read for a range of units from one part of the corpus after the other."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.checked_reading import checked_dataset, damage_told
from pipeline.storage.sorted_rows import SortedRows
from pipeline.storage.tables import KeptFiles, Tables
from stages.record.partial_tables import BLOCK, BY_BLOCK, PARTIAL_UNITS, PARTIALS


class Partials:
    """All partial tables of a run, part by part, with their footers held in memory."""

    def __init__(self, tables: Tables) -> None:
        names = [path.stem for path in tables.files(PARTIAL_UNITS)]
        self._files = KeptFiles(tables.file(table, name) for name in names for table in PARTIALS)
        self._parts = [{table.name: _open(tables.file(table, name)) for table in PARTIALS} for name in names]

    def about(self, module: str, start: int, stop: int) -> Iterator[dict[str, pa.Table]]:
        """For each part of the corpus the rows about the units start..stop of a module, or about blocks that hold one of them.

        Row groups that hold none of them are not read.
        """
        index = pc.field("index")
        of_module = (pc.field("module") == module) & (index < stop)
        for part in self._parts:
            files, rows = [path for path, _ in part.values()], {}
            with damage_told(files):
                for name, (_, one) in part.items():
                    first = start - start % BLOCK if name in BY_BLOCK else start
                    rows[name] = one.read(range(first, stop), of_module & (index >= first), module=module)
            self._files.check(files)
            yield rows


def _open(path: Path) -> tuple[Path, SortedRows]:
    with damage_told([path]):
        return path, SortedRows(checked_dataset([path]), "index")
