"""Read documents from text, JSONL, CSV and Parquet files as a stream."""

import bz2
import codecs
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.corpora.windows import PIECE_CHARACTERS, Document, in_pieces
from pipeline.errors import UserError

KINDS = {
    "text": (".txt", ".text"),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "parquet": (".parquet", ".pq"),
}
"""Endings of each kind of file."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
READABLE = ".txt, .text, .jsonl, .ndjson, .csv, .tsv, .tab (each also with .gz, .bz2, .xz, .zst), .parquet, .pq"
ROWS = 256
"""Rows of a table read at a time."""
MAX_LINE = 1 << 28
"""Bytes of a JSONL line; a longer one is no JSONL."""


def corpus_files(source: str) -> list[tuple[str, Path]]:
    """The readable files of a file or folder with their names in the corpus, sorted by name.

    A folder is searched with its subfolders; hidden files, names with an underscore in front and files of other kinds
    are passed over.

    Raises:
        UserError: nothing there, or nothing readable.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        inside = [(file.relative_to(path), file) for file in path.rglob("*") if file.is_file()]
        files = sorted(
            (name.as_posix(), file)
            for name, file in inside
            if kind_of(file) is not None and not any(part.startswith((".", "_")) for part in name.parts)
        )
        problem = "the folder holds no file that can be read"
    else:
        files = [(path.name, path)] if path.exists() and kind_of(path) is not None else []
        problem = f"{path.suffix or 'no suffix'} is not a kind of file that is read"
    if not path.exists():
        problem = "there is no such file or folder; give hub:NAME, package:gensim-wikipedia, or a file or folder"
    if not files:
        raise UserError(f"corpus.source = {source!r}: {problem}; readable: {READABLE}")
    return files


def kind_of(file: Path) -> str | None:
    """The kind of a file by its ending, as in KINDS; None for anything else."""
    endings = [suffix.lower() for suffix in file.suffixes]
    packed = bool(endings) and endings[-1] in COMPRESSED
    last = endings[-2:-1] if packed else endings[-1:]
    kind = next((kind for kind, known in KINDS.items() if last and last[0] in known), None)
    return None if packed and kind == "parquet" else kind


def read_file(name: str, file: Path, text_field: str) -> Iterator[Document]:
    """The documents of one file: a text file is one document, other files hold one in each line or row.

    Raises:
        UserError: the file is broken, is not UTF-8, or lacks the field; the message names line or row.
    """
    kind = kind_of(file)
    if kind == "text":
        return _read_text(name, file)
    return (_read_jsonl if kind == "jsonl" else _read_table)(name, file, text_field)


def _read_text(name: str, file: Path) -> Iterator[Document]:
    """One document in pieces; ends of lines become newlines."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    parts: list[str] = []
    size, line, begun = 0, 1, False
    with _opened(file) as stream:
        while raw := stream.readline(PIECE_CHARACTERS):
            try:
                text = decoder.decode(raw)
            except UnicodeDecodeError as error:
                raise _not_utf8(file, line, error) from None
            if line == 1 and not parts and not begun:
                text = text.removeprefix("\ufeff")
            line += raw.endswith(b"\n")
            parts.append(text.replace("\r\n", "\n"))
            size += len(parts[-1])
            if size >= 2 * PIECE_CHARACTERS or (size >= PIECE_CHARACTERS and parts[-1].isspace()):
                joined = "".join(parts)
                if begun or not joined.isspace():
                    yield Document(name, joined, continues=begun)
                    begun = True
                parts, size = [], 0
        try:
            parts.append(decoder.decode(b"", final=True))
        except UnicodeDecodeError as error:
            raise _not_utf8(file, line, error) from None
    rest = "".join(parts)
    if rest and not rest.isspace():
        yield Document(name, rest, continues=begun)


def _read_jsonl(name: str, file: Path, text_field: str) -> Iterator[Document]:
    line = 0
    with _opened(file) as stream:
        while raw := stream.readline(MAX_LINE + 1):
            line += 1
            if len(raw) > MAX_LINE:
                raise UserError(f"{file} line {line} is longer than {MAX_LINE:,} bytes; JSONL has one record a line")
            if raw.isspace():
                continue
            yield from in_pieces(f"{name}:{line}", _text_of_record(raw, file, line, text_field))


def _text_of_record(raw: bytes, file: Path, line: int, text_field: str) -> str:
    try:
        record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise _not_utf8(file, line, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} line {line} is not JSON ({error}); mend or remove the line") from None
    if not isinstance(record, dict):
        raise UserError(
            f"{file} line {line} is a {type(record).__name__}, not a JSON object with a field {text_field!r}"
        )
    fields = ", ".join(map(repr, record)) or "none"
    if text_field not in record:
        raise UserError(f"{file} line {line} has no field {text_field!r}; set corpus.text_field to one of: {fields}")
    text = record[text_field]
    if text is not None and not isinstance(text, str):
        raise UserError(
            f"{file} line {line}: the field {text_field!r} holds {str(text)[:40]!r}, which is not text; "
            "see corpus.text_field"
        )
    return text or ""


def _read_table(name: str, file: Path, text_field: str) -> Iterator[Document]:
    """The rows of a CSV or Parquet file."""
    import pandas as pd
    import pyarrow as pa

    row, kind = 0, "Parquet" if kind_of(file) == "parquet" else "CSV"
    try:
        for texts in (_parquet_texts if kind == "Parquet" else _csv_texts)(file, text_field):
            for text in texts:
                yield from in_pieces(f"{name}:{row}", text if isinstance(text, str) else "")
                row += 1
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: the text after row {row} is not UTF-8 ({error.reason}); convert the file, for example with iconv -t UTF-8, "
            "or write it again"
        ) from None
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise UserError(
            f"{file} cannot be read as {kind} after row {row} ({error}); mend the row, or fetch the file again where it is cut off"
        ) from None


def _csv_texts(file: Path, text_field: str) -> Iterator[Any]:
    """A column of the rows below the header; a cell with quotes around it may hold separators and ends of lines."""
    import pandas as pd

    separator = "\t" if kind_of(file) == "tsv" else ","
    with _opened(file) as stream:
        for rows in pd.read_csv(stream, sep=separator, dtype=str, keep_default_na=False, chunksize=ROWS):
            if text_field not in rows:
                raise _no_column(file, text_field, list(map(str, rows)))
            yield rows[text_field]


def _parquet_texts(file: Path, text_field: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, page_checksum_verification=True) as table:
        _check_column(table.schema_arrow, file, text_field)
        for batch in table.iter_batches(batch_size=ROWS, columns=[text_field]):
            yield batch.column(0).to_pylist()


def _no_column(file: Path, text_field: str, columns: list[str]) -> UserError:
    return UserError(f"{file} has no column {text_field!r}; set corpus.text_field to one of: {', '.join(columns)}")


def _check_column(schema: Any, file: Path, text_field: str) -> None:
    import pyarrow.types as kinds

    if text_field not in schema.names:
        raise _no_column(file, text_field, schema.names)
    kind = schema.field(text_field).type
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)):
        texts = [field.name for field in schema if kinds.is_string(field.type) or kinds.is_large_string(field.type)]
        raise UserError(
            f"{file}: the column {text_field!r} holds {kind}, not text; "
            f"set corpus.text_field to a column of text: {', '.join(texts) or 'there is none'}"
        )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where its suffix says that it is compressed."""
    opened: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}.get(file.suffix.lower(), open)
    try:
        with opened(file, "rb") as stream:
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); it may be cut off or not be what its suffix says, fetch it again"
        ) from None


def _zstd(file: Path, mode: str) -> Any:
    import io

    import pyarrow as pa

    packed: Any = pa.CompressedInputStream(pa.OSFile(str(file), mode), "zstd")
    return io.BufferedReader(packed, 1 << 20)


def _not_utf8(file: Path, line: int, error: UnicodeDecodeError) -> UserError:
    return UserError(
        f"{file} line {line} is not UTF-8 ({error.reason}); convert the file, for example with iconv -t UTF-8"
    )
