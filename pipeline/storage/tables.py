"""The finished tables of a run: read them, and remove the rows of those that were only needed for a while."""

import json
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.schemas import TableSchema
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.checked_reading import checked_format, damage_told
from pipeline.storage.listed_files import ListedFiles
from pipeline.storage.shards import writer_options
from pipeline.storage.sorted_rows import SortedRows
from pipeline.storage.stores import arrow_path, arrow_system, metadata_of, open_parquet, state, states
from pipeline.storage.temporary_names import remove_leftovers

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class _Source(NamedTuple):
    """The files of a table as one dataset, and how they were when it was made."""

    files: list[Path]
    states: dict[str, tuple[Path, Hashable]]
    """By the file's name for pyarrow."""
    dataset: "ds.FileSystemDataset"


class Tables:
    """The tables in a run's folder. Page checksums are verified on every read.

    Where a run has thousands of files, a read takes the time of those that hold the rows: which they are is kept in memory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed = ListedFiles()
        self._sources: dict[str, _Source] = {}
        self._sorted: dict[str, tuple[ds.FileSystemDataset, SortedRows]] = {}

    def folder(self, table: TableSchema) -> Path:
        return self.root / table.path

    def file(self, table: TableSchema, shard: str) -> Path:
        return self.folder(table) / f"{shard}.parquet"

    def files(self, table: TableSchema) -> list[Path]:
        return list(self._listed.of(self.folder(table)))

    def read(
        self,
        table: TableSchema,
        where: Any = None,
        columns: Sequence[str] | None = None,
        shards: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows that fulfil a pyarrow expression, of some shards or of all.

        Row groups whose statistics rule them out are not read.
        """
        files = self._listed.of(self.folder(table))
        wanted = files if shards is None else [self.file(table, shard) for shard in shards]
        if not wanted:
            return _nothing(table, columns)
        if missing := set(wanted).difference(files):
            raise FileNotFoundError(f"{min(missing)} is not there")
        kept = KeptFiles(wanted if table.temporary else [])
        with damage_told(files):
            if where is None and shards is None:
                source = _dataset(table, files, [None] * len(files))
            else:
                source = self._source(table, files, where, None if shards is None else set(map(arrow_path, wanted)))
            rows = source.to_table(filter=where, columns=list(columns) if columns else None)
        kept.check()
        return rows

    def numbered(self, table: TableSchema, numbers: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a table with a number for a key, such as sequences by their seq_id; row groups that hold none are not read."""
        (name,), wanted = table.key, sorted(set(numbers))
        if not wanted or not (files := self._listed.of(self.folder(table))):
            return _nothing(table, columns)
        with damage_told(files):
            source = self._source(table, files)
            if table.path not in self._sorted or self._sorted[table.path][0] is not source:
                self._sorted[table.path] = source, SortedRows(source, name)
            return self._sorted[table.path][1].read(wanted, pc.field(name).isin(wanted), columns)

    def batches(
        self, table: TableSchema, where: Any = None, columns: Sequence[str] | None = None, rows: int = 1024
    ) -> Iterator[pa.RecordBatch]:
        """The same rows of all shards in their order, at most so many at a time: memory does not grow with the table."""
        import pyarrow.dataset as ds

        if not (files := self._listed.of(self.folder(table))):
            return
        with damage_told(files):
            yield from self._source(table, files).to_batches(
                filter=where,
                columns=list(columns) if columns else None,
                batch_size=rows,
                batch_readahead=1,
                fragment_readahead=1,
                # one row group after the other, where else a whole file would be fetched beforehand
                fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False, page_checksum_verification=True),
                use_threads=False,  # others read on while the rows are used, up to the whole table
            )

    def _source(
        self, table: TableSchema, files: list[Path], where: Any = None, among: Collection[str] | None = None
    ) -> "ds.FileSystemDataset":
        """Those files that may hold rows which fulfil an expression, as a dataset; footers are kept for as long as files stay the same."""
        known = self._sources.get(table.path)
        if known is None or known.files is not files:
            return _holding(self._keep(table, files).dataset, where, among)
        part = _holding(known.dataset, where, among)
        before = [known.states[name] for name in part.files]
        if states([path for path, _ in before]) != [told for _, told in before]:  # one was written over in its place
            part = _holding(self._keep(table, files).dataset, where, among)
        return part

    def _keep(self, table: TableSchema, files: list[Path]) -> "_Source":
        told = zip(files, states(files), strict=True)
        now, known = {arrow_path(path): (path, one) for path, one in told}, self._sources.get(table.path)
        if known is None or known.states != now:
            each = table.units_per_group is not None and len(files) > 1
            source = _dataset(table, files, [_units_of(path) if each else None for path in files])
        else:
            source = known.dataset
        self._sources[table.path] = _Source(files, now, source)
        return self._sources[table.path]

    def count(self, table: TableSchema) -> int:
        """Rows of the table, from the footers alone."""
        return sum(metadata_of(path).num_rows for path in self.files(table))

    def is_unit(self, module: str, indices: Sequence[int], polarity: str | None = None) -> Any:
        """The expression for some units of a module, by runs of indices, as row groups are ruled out by them best.

        Args:
            polarity: '+' or '-'; both unless given.
        """
        runs: list[list[int]] = []
        for index in sorted(set(indices)):
            if runs and runs[-1][1] == index - 1:
                runs[-1][1] = index
            else:
                runs.append([index, index])
        field = pc.field("index")
        within = [(field >= first) & (field <= last) for first, last in runs]
        found = (pc.field("module") == module) & reduce(or_, within, pc.scalar(False))
        return found if polarity is None else found & (pc.field("polarity") == polarity)


def _nothing(table: TableSchema, columns: Sequence[str] | None) -> pa.Table:
    empty = table.schema.empty_table()
    return empty.select(list(columns)) if columns else empty


def _holding(source: "ds.FileSystemDataset", where: Any, among: Collection[str] | None) -> "ds.FileSystemDataset":
    """Those files of a dataset that may hold rows which fulfil an expression, among all or among some."""
    import pyarrow.dataset as ds

    if where is None and among is None:
        return source
    found = [one for one in source.get_fragments(filter=where) if among is None or one.path in among]
    return ds.FileSystemDataset(found, source.schema, source.format, source.filesystem)


def _dataset(table: TableSchema, files: Sequence[Path], units: Sequence[Any]) -> "ds.FileSystemDataset":
    """Some files as one dataset, which passes a file over by the expression that all of its rows fulfil, where there is one."""
    import pyarrow.dataset as ds

    layout, disk = checked_format(files[0]), arrow_system(files[0])
    fragments = [
        layout.make_fragment(arrow_path(path), disk, partition_expression=held)
        for path, held in zip(files, units, strict=True)
    ]
    return ds.FileSystemDataset(fragments, table.schema, layout, disk)


def _units_of(path: Path) -> Any:
    """The expression that all rows of a file fulfil: one module, and a range of indices; None where it holds several."""
    footer = metadata_of(path)
    names = footer.schema.to_arrow_schema().names
    found = {}
    for name in ("module", "index"):
        groups = [footer.row_group(number).column(names.index(name)) for number in range(footer.num_row_groups)]
        ends = [end for group in groups for end in (group.statistics.min, group.statistics.max)]
        found[name] = (min(ends), max(ends)) if ends else (None, None)
    first, last = found["index"]
    if first is None or found["module"][0] != found["module"][1]:
        return None
    field = pc.field("index")
    return (pc.field("module") == found["module"][0]) & (field >= first) & (field <= last)


HELD = b"held"
"""Key in the footer of a pruned file: the rows that it held of each module."""


def prune(tables: Tables, pruned: Iterable[TableSchema]) -> None:
    """Remove the rows of some tables. The files stay and say what they held, so that their shards count as done.

    It can be cut off anywhere and done again, by several processes at a time.
    """
    for table in pruned:
        remove_leftovers(tables.folder(table))
        for path in tables.files(table):
            if not is_pruned(path):
                _empty(path, table)


def has_rows(tables: Tables, pruned: Iterable[TableSchema]) -> bool:
    """Whether any of some tables has a file whose rows were not removed."""
    return any(not is_pruned(path) for table in pruned for path in tables.files(table))


def is_pruned(path: Path) -> bool:
    """Whether a file's rows were removed."""
    return HELD in (metadata_of(path).metadata or {})


class KeptFiles:
    """Files of a temporary table while they are read: whoever reads one that is emptied meanwhile must not take it for a table
    without rows.

    Raises:
        RuntimeError: one of them was emptied.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._states = {path: state(path) for path in files}
        for path in self._states:
            if is_pruned(path):
                raise RuntimeError(f"the rows of {path} were removed, as every stage that reads them was finished")

    def check(self, files: Iterable[Path] | None = None) -> None:
        """To be called once rows were read; of which files, if not of all."""
        for path in self._states if files is None else files:
            if state(path) != self._states[path]:
                raise RuntimeError(
                    f"{path} was replaced while it was read, by another worker that had finished with it"
                )


def rows_by_module(path: Path) -> dict[str, int]:
    """How many rows a file has of each module, or had before they were removed; empty where rows have no module."""
    with open_parquet(path) as file:
        if (held := (file.metadata.metadata or {}).get(HELD)) is not None:
            found: dict[str, int] = json.loads(held)
            return found
        if "module" not in file.schema_arrow.names:
            return {}
        counts = pc.value_counts(file.read(columns=["module"])["module"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}


def _empty(path: Path, table: TableSchema) -> None:
    """Replace a file by one with its footer and no rows."""
    footer = {key: value for key, value in metadata_of(path).metadata.items() if key != b"ARROW:schema"}
    held, nothing = json.dumps(rows_by_module(path)).encode(), table.schema.empty_table()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, table.schema, **writer_options(table, nothing)) as writer,
    ):
        writer.add_key_value_metadata({**footer, HELD: held})
