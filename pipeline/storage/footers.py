"""What a published file says of itself in its footer: schema, fingerprint, shard, commit, and digests of content."""

import hashlib
import json
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.schemas import TableSchema
from pipeline.storage.checked_reading import DamagedFileError
from pipeline.storage.stores import is_remote, metadata_of, states

AT_A_TIME = 16
"""Footers that a store is asked for at the same time."""
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
    content: str = ""
    """Digest of the rows as the file holds them."""
    read: Mapping[str, str] = field(default_factory=dict)
    """By stage, a digest of the content of what was read of it."""


def read_footer(path: Path, table: TableSchema | None = None) -> Footer:
    """The footer of a published file.

    Args:
        table: that the file has to be of, where that is known.

    Raises:
        UserError: the file is damaged, was not written by a stage, or is of another table or without its columns.
    """
    try:
        metadata = metadata_of(path)
        keys = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
        columns = metadata.schema.to_arrow_schema().remove_metadata()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(path, f"it is truncated or not a Parquet file ({error})") from None
    missing = {"schema", "fingerprint", "inputs", "shard", "seconds", "failed"} - set(keys)
    if missing:
        raise UserError(f"{path} was not written by this pipeline (no {min(missing)!r} in its footer); move it away")
    if table is not None:
        _refuse_other_table(path, keys["schema"], columns, table)
    try:
        inputs, read = _json_object(keys["inputs"]), _json_object(keys.get("read", "{}"))
        failed, seconds = int(keys["failed"]), float(keys["seconds"])
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"its footer cannot be understood ({error})") from None
    return Footer(
        schema=keys["schema"],
        fingerprint=keys["fingerprint"],
        inputs=inputs,
        shard=keys["shard"],
        rows=metadata.num_rows,
        failed=failed,
        seconds=seconds,
        content=keys.get("content", ""),
        read=read,
    )


def read_footers(paths: Sequence[Path], table: TableSchema) -> dict[Path, Footer]:
    """The footers of files of a table. Those in a store are asked for side by side, each once while its file stays as it is.

    Raises:
        UserError: as `read_footer`.
    """
    if not paths or not is_remote(paths[0]):
        return {path: read_footer(path, table) for path in paths}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(partial(_unchanged_footer, table=table), paths, states(paths)))
    return {path: footer for path, footer in zip(paths, found, strict=True) if footer}


@lru_cache(maxsize=100_000)
def _unchanged_footer(path: Path, now: Hashable, table: TableSchema) -> Footer | None:
    return None if now is None else read_footer(path, table)


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {text[:40]}")
    return value


def _refuse_other_table(path: Path, tag: str, columns: pa.Schema, table: TableSchema) -> None:
    """A file of another table, or with other columns than its version has; of other versions nothing is said here."""
    if tag.rpartition("/")[0] != table.name:
        raise UserError(f"{path} holds the table {tag}, not {table.tag}; move it away, it is then made anew")
    expected = table.schema.remove_metadata()
    if tag == table.tag and not columns.equals(expected):
        fields, wanted = ({field.name: field.type for field in schema} for schema in (columns, expected))
        other = [name for name in {**wanted, **fields} if fields.get(name) != wanted.get(name)] or ["their order"]
        raise DamagedFileError(path, f"its columns are not those of {table.tag}; they differ in {', '.join(other)}")


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """What identifies a stage's output: the first 16 hexadecimal digits of the SHA-256 of its inputs as canonical JSON."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()[:16]


def footer(
    inputs: Mapping[str, Any],
    key: Mapping[str, Any],
    seconds: float,
    read: Mapping[str, str] | None = None,
    profile: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """What the footer of a shard's files says of where they come from.

    Args:
        inputs: all that can change the rows of the stage.
        key: what the shard covers.
        seconds: the time it took.
        read: by stage, a digest of the content of what was read of it.
        profile: what the endpoint that was asked can do.
    """
    return {
        "fingerprint": fingerprint(inputs),
        "inputs": canonical(inputs),
        "shard": canonical(key),
        "seconds": f"{seconds:.3f}",
        "read": canonical(read or {}),
        "profile": canonical(profile or {}),
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
