"""The files of a shard: publish them atomically, small and for any reader of Parquet, and tell whether they are there.

A file is written under a name that starts with a dot and does not end in `.parquet`, flushed to disk and renamed, so a
reader never sees half a file. Its footer says what it is: schema, fingerprint, shard, commit.
"""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.schemas import TableSchema
from pipeline.storage.checked_reading import damaged
from pipeline.storage.temporary_names import temporary_path

FIRST = 4096
"""Rows that are looked at to choose an encoding."""
UNWRITABLE = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS
}  # fmt: skip
"""Errors of a full disk, or of a folder that cannot be made or written."""


CREATED_BY = "neurogloss 0.1.0"


@dataclass(frozen=True)
class Footer:
    """What a published file says of itself."""

    schema: str
    fingerprint: str
    inputs: Mapping[str, Any]
    shard: str
    rows: int
    failed: int
    """Rows whose status is `failed`."""
    seconds: float
    """Time the shard took."""


def read_footer(path: Path, table: TableSchema | None = None) -> Footer:
    """The footer of a published file.

    Args:
        table: that the file has to be of, where that is known.

    Raises:
        UserError: the file is damaged, was not written by a stage, or is of another table or without its columns.
    """
    try:
        metadata = pq.read_metadata(path)
        keys = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
        columns = metadata.schema.to_arrow_schema().remove_metadata()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, f"it is truncated or not a Parquet file ({error})") from None
    missing = {"schema", "fingerprint", "inputs", "shard", "seconds", "failed"} - set(keys)
    if missing:
        raise UserError(f"{path} was not written by this pipeline (no {min(missing)!r} in its footer); move it away")
    if table is not None:
        _refuse_other_table(path, keys["schema"], columns, table)
    try:
        inputs, failed, seconds = json.loads(keys["inputs"]), int(keys["failed"]), float(keys["seconds"])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its footer cannot be understood ({error})") from None
    if not isinstance(inputs, dict):
        raise damaged(path, "its footer cannot be understood (`inputs` is no object)")
    return Footer(keys["schema"], keys["fingerprint"], inputs, keys["shard"], metadata.num_rows, failed, seconds)


def _refuse_other_table(path: Path, tag: str, columns: pa.Schema, table: TableSchema) -> None:
    """A file of another table, or with other columns than its version has; of other versions nothing is said here."""
    if tag.rpartition("/")[0] != table.name:
        raise UserError(f"{path} holds the table {tag}, not {table.tag}; move it away, it is then made anew")
    expected = table.schema.remove_metadata()
    if tag == table.tag and not columns.equals(expected):
        fields, wanted = ({field.name: field.type for field in schema} for schema in (columns, expected))
        other = [name for name in {**wanted, **fields} if fields.get(name) != wanted.get(name)] or ["their order"]
        raise damaged(path, f"its columns are not those of {table.tag}; they differ in {', '.join(other)}")


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """What identifies a stage's output: the first 16 hexadecimal digits of the SHA-256 of its inputs as canonical JSON."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()[:16]


def footer(inputs: Mapping[str, Any], key: Mapping[str, Any], seconds: float) -> dict[str, str]:
    """What the footer of a shard's files says of where they come from.

    Args:
        inputs: all that can change the rows of the stage.
        key: what the shard covers.
        seconds: the time it took.
    """
    return {
        "fingerprint": fingerprint(inputs),
        "inputs": canonical(inputs),
        "shard": canonical(key),
        "seconds": f"{seconds:.3f}",
        "git_commit": git_commit(),
        "created_by": CREATED_BY,
    }


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@cache
def git_commit() -> str:
    """The commit of this checkout, `-dirty` added where files differ from it; `unknown` outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def publish(path: Path, rows: pa.Table | Iterable[pa.Table], table: TableSchema, footer: Mapping[str, str]) -> None:
    """Write one table of a shard under its final name, all or nothing.

    Args:
        rows: all of them, or some after the other in the table's order; only one piece is in memory at a time. Row groups end
            where a piece ends.
        footer: what the file says of itself, beside its schema and its failed rows; see `Footer`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
        ValueError: the rows do not have the table's columns.
    """
    pieces = (_cast(piece, table) for piece in ([rows] if isinstance(rows, pa.Table) else rows))
    first = next(pieces, table.schema.empty_table())
    options, failed = writer_options(table, first), 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, table.schema, **options) as writer:
        for piece in chain([first], pieces):
            failed += _failed(piece)
            for start, stop in _groups(piece, table):
                writer.write_table(piece.slice(start, stop - start))
        writer.add_key_value_metadata({"schema": table.tag, **footer, "failed": str(failed)})


def _cast(rows: pa.Table, table: TableSchema) -> pa.Table:
    if rows.schema.names != table.schema.names:
        raise ValueError(f"{table.name}: columns {rows.schema.names}, expected {table.schema.names}")
    return rows.cast(table.schema)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; moved there, flushed to disk, when the block ends without an error."""
    temporary = temporary_path(path)
    try:
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Raises UserError where `path` cannot be written: a full disk, or a folder that may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise UserError(
                f"cannot write {path}: {error.strerror}; make room or give another folder, then run again"
            ) from None
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(rows: pa.Table) -> int:
    if "status" not in rows.schema.names:
        return 0
    return int(np.count_nonzero(rows["status"].to_numpy(zero_copy_only=False) == "failed"))


def _groups(rows: pa.Table, table: TableSchema) -> Iterator[tuple[int, int]]:
    """Row ranges of the row groups."""
    if rows.num_rows == 0:
        return
    if table.units_per_group is None:
        cuts = list(range(0, rows.num_rows, table.rows_per_group))
    else:
        modules = rows["module"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        indices = rows["index"].to_numpy()
        starts = np.flatnonzero(np.diff(modules, prepend=-1) | np.diff(indices, prepend=-1))
        cuts = starts[:: table.units_per_group].tolist()
    yield from zip(cuts, [*cuts[1:], rows.num_rows], strict=True)


def writer_options(table: TableSchema, rows: pa.Table) -> dict[str, Any]:
    """Arguments of pq.ParquetWriter, by a table's types and its first rows.

    Texts, in lists too, have a dictionary, and so have the whole numbers of published tables, which come again and again. Of
    floats the first bytes of all values lie together, then the second ones and so on (BYTE_STREAM_SPLIT), a sixth smaller
    for noise and half for rounded numbers; but where most of them are 0 they lie as they are, so that runs of zeros stay runs.
    """
    leaves = dict(leaf for field in table.schema for leaf in _leaves(field.name, field.type))
    numbers = set() if table.folder else {field.name for field in table.schema if pa.types.is_integer(field.type)}
    floats = [path for path, kind in leaves.items() if pa.types.is_floating(kind) and not _mostly_zero(rows, path)]
    return {
        "compression": "zstd",
        "write_statistics": [field.name for field in table.schema if not pa.types.is_binary(field.type)],
        "write_page_index": True,
        "write_page_checksum": True,
        "use_dictionary": [path for path, kind in leaves.items() if pa.types.is_string(kind) or path in numbers],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Path and type of each column of values that a field has in the file."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind


def _mostly_zero(rows: pa.Table, path: str) -> bool:
    """Whether a path is a list of floats, more than half of which are 0."""
    name, *inner = path.split(".")
    if inner != ["list", "element"]:
        return False
    values = pc.fill_null(pc.list_flatten(rows[name].slice(0, FIRST)), np.nan).to_numpy()
    return bool(2 * np.count_nonzero(values == 0) > len(values))
