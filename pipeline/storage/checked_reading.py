"""Reading Parquet files so that no damage is taken for data: the checksum of each page is compared when the page is read.

That costs next to nothing, needs no list of files that were looked at before, and finds what a disk has lost since.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.stores import arrow_path, arrow_system, is_remote, open_parquet

if TYPE_CHECKING:
    import pyarrow.dataset as ds

ROWS = 4096
"""Rows of a file that are in memory at a time."""
FAULTS = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What reading a damaged file raises."""
HOLE = 2**20
"""Bytes that are fetched in vain from a store rather than by two requests."""
THROUGH_DUCKDB = "reading the stream registered as"
"""Stands in DuckDB's errors about rows that pyarrow could not read for it."""


def checked_format(path: Path) -> "ds.ParquetFileFormat":
    """Parquet whose page checksums are compared, for files that lie where `path` does."""
    import pyarrow.dataset as ds

    ranges = pa.CacheOptions(hole_size_limit=HOLE) if is_remote(path) else None
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True, cache_options=ranges)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)


def checked_dataset(files: Iterable[Path]) -> "ds.FileSystemDataset":
    """Some files with the columns of the first one.

    Raises:
        UserError: one of them is damaged where its columns are described.
    """
    import pyarrow.dataset as ds

    paths = list(files)
    with damage_told(paths):
        return ds.dataset(
            [arrow_path(path) for path in paths], format=checked_format(paths[0]), filesystem=arrow_system(paths[0])
        )


@contextmanager
def damage_told(files: Iterable[Path]) -> Iterator[None]:
    """Where something cannot be read, look for the file that is at fault and name it.

    Args:
        files: those that may have been read; looked at once something went wrong.

    Raises:
        UserError: one of them is damaged.
    """
    try:
        yield
    except Exception as error:
        read = (isinstance(error, FAULTS) and not getattr(error, "errno", None)) or THROUGH_DUCKDB in str(error)
        if read:
            for path in files:
                if reason := damage_of(path):
                    raise DamagedFileError(path, reason) from None
        raise


class DamagedFileError(UserError):
    """A file that cannot be used; the message says how it is made again."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}. Nothing of it was used. `python -m pipeline repair RUN`, with the folder of the run, moves it "
            "away and says what makes it again; `python -m pipeline verify RUN` looks for more"
        )
        self.reason = reason


def damage_of(path: Path) -> str | None:
    """Why a file cannot be read as a whole, with the column where that is known; None where it can."""
    try:
        with open_parquet(path, page_checksum_verification=True) as file:
            try:
                for _ in file.iter_batches(batch_size=ROWS, use_threads=False):
                    pass
            except FAULTS as error:
                return f"{_damaged_columns(file)}{_in_words(error)}"
    except FileNotFoundError:  # it has been made anew meanwhile
        return None
    except FAULTS as error:
        return _in_words(error)
    return None


def _damaged_columns(file: pq.ParquetFile) -> str:
    names = []
    for name in file.schema_arrow.names:
        try:
            for _ in file.iter_batches(batch_size=ROWS, columns=[name], use_threads=False):
                pass
        except FAULTS:
            names.append(name)
    return f"in the column {', '.join(names)}, " if names else ""


def _in_words(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return (
        "a checksum does not fit" if "CRC checksum" in text else f"it is truncated or was altered ({text.rstrip('.')})"
    )
