"""Files that a disk has spoilt."""

from pathlib import Path

import pyarrow.parquet as pq


def flip(path: Path, column: str) -> None:
    """Turn one bit over in the middle of a column's first values."""
    group = pq.read_metadata(path).row_group(0)
    chunks = (group.column(number) for number in range(group.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    flip_at(path, start + chunk.total_compressed_size - 2)


def flip_at(path: Path, place: int) -> None:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << 3
    path.write_bytes(bytes(data))
