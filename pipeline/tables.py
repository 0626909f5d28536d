"""Read the finished tables of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.schemas import TableSchema


class Tables:
    """The tables in a run's folder. Page checksums are verified on every read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, table: TableSchema) -> Path:
        return self.root / table.path

    def file(self, table: TableSchema, shard: str) -> Path:
        return self.folder(table) / f"{shard}.parquet"

    def files(self, table: TableSchema) -> list[Path]:
        return sorted(path for path in self.folder(table).glob("*.parquet") if not path.name.startswith((".", "_")))

    def read(
        self, table: TableSchema, where: Any = None, columns: Sequence[str] | None = None, shard: str | None = None
    ) -> pa.Table:
        """The rows that fulfil a pyarrow expression, of one shard or of all.

        Row groups whose statistics rule them out are not read.
        """
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        source = ds.dataset(
            [str(path) for path in (self.files(table) if shard is None else [self.file(table, shard)])],
            schema=table.schema,
            format=ds.ParquetFileFormat(default_fragment_scan_options=options),
        )
        return source.to_table(filter=where, columns=list(columns) if columns else None)

    def count(self, table: TableSchema) -> int:
        """Rows of the table, from the footers alone."""
        return sum(pq.read_metadata(path).num_rows for path in self.files(table))

    def is_unit(self, module: str, indices: Sequence[int]) -> Any:
        """The expression for some units of a module."""
        return (ds.field("module") == module) & ds.field("index").isin(list(indices))
