"""Text, JSONL, CSV and Parquet files are read as they are, and what is wrong with one is told by line or row."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpora.text_files import corpus_files, read_file
from pipeline.corpora.windows import PIECE_CHARACTERS, Document
from pipeline.errors import UserError

RECORDS: list[dict[str, Any]] = [
    {"text": "The first one.\nTwo lines."},
    {"text": "Ünïcode 日本 🎉"},
    {"text": "third", "n": 3},
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def _zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstd,
}  # fmt: skip


def _read(file: Path, text_field: str = "text") -> list[Document]:
    return list(read_file(file.name, file, text_field))


@pytest.mark.parametrize("suffix", PACKERS)
def test_jsonl_is_read_compressed_or_not(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(PACKERS[suffix](LINES))
    assert [document.text for document in _read(file)] == [record["text"] for record in RECORDS]
    assert [document.doc_id for document in _read(file)] == [f"{file.name}:{line}" for line in (1, 2, 3)]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(PACKERS[suffix]("One.\r\n\r\nTwo — 日本.\n".encode()))
    assert _read(file) == [Document(file.name, "One.\n\nTwo — 日本.\n")]


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_csv_is_read_by_row_below_its_header(tmp_path: Path, suffix: str, separator: str) -> None:
    rows = [["n", "text"], ["1", 'Two lines,\n"quoted",\tone tab.'], ["2", ""], ["3", "Ünïcode 日本 🎉"], ["4", "NA"]]
    written = io.StringIO()
    csv.writer(written, delimiter=separator).writerows(rows)
    file = tmp_path / f"a.{'csv' if separator == ',' else 'tsv'}{suffix}"
    file.write_bytes(PACKERS[suffix](b"\xef\xbb\xbf" + written.getvalue().encode()))
    assert [(document.doc_id, document.text) for document in _read(file)] == [
        (f"{file.name}:{row}", text) for row, (_, text) in enumerate(rows[1:]) if text
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n1,2\n", r"no column 'text'; set corpus\.text_field to one of: a, b"),
        (b"text\n1\n2,3\n", r"as CSV after row \d.*line 3"),
        (b"text\n\xff\n", "not UTF-8"),
        (b"", "as CSV after row 0"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=says):
        _read(tmp_path / "a.csv")


def test_parquet_is_read_by_row_whatever_the_type_of_string(tmp_path: Path) -> None:
    texts = ["one", None, "three", "", "five"]
    for name, kind in {"s": pa.string(), "l": pa.large_string(), "d": pa.dictionary(pa.int32(), pa.string())}.items():
        pq.write_table(
            pa.table({"body": pa.array(texts, pa.string()).cast(kind), "n": range(5)}), tmp_path / f"{name}.parquet"
        )
        documents = _read(tmp_path / f"{name}.parquet", "body")
        assert documents == [Document(f"{name}.parquet:{row}", texts[row] or "") for row in (0, 2, 4)]


def test_blank_lines_blank_documents_and_byte_order_marks_are_no_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b'{"text": "a"}\n\n  \n{"text": " \\n"}\n{"text": null}\n{"text": "b"}')
    assert [(document.doc_id, document.text) for document in _read(file)] == [("a.jsonl:1", "a"), ("a.jsonl:6", "b")]
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf \n\n")
    assert _read(file) == []
    file.write_bytes(b"\xef\xbb\xbfa")
    assert _read(file)[0].text == "a"


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a\\ud800b"}\n')
    assert _read(file)[0].text == "a\ufffdb"


def test_a_folder_is_read_by_name_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a/z.jsonl",
        "a/y.parquet",
        ".hidden.txt",
        "_notes.txt",
        "a/_x/c.txt",
        "readme.md",
        "c.TXT.GZ",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in corpus_files(str(tmp_path))] == ["a/y.parquet", "a/z.jsonl", "b.txt", "c.TXT.GZ"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', ["a.jsonl line 2", "not JSON"]),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', ["line 2", "list", "'text'"]),
        ("a.jsonl", b'{"text": "a"}\n\n{"body": "b", "id": 1}\n', ["line 3", "no field 'text'", "'body', 'id'", "text_field"]),
        ("a.jsonl", b'{"text": 12}\n', ["line 1", "12", "not text"]),
        ("a.jsonl", b'{"text": "\xff"}\n', ["line 1", "not UTF-8", "iconv"]),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, ["line 2", "not JSON"]),
        ("a.txt", b"good\nbad \xe9t\xe9\n", ["a.txt line 2", "not UTF-8"]),
        ("a.txt", b"cut off \xe6\x97", ["line 1", "not UTF-8"]),
        ("a.txt.gz", gzip.compress(bytes(range(32, 127)) * 99)[:-30], ["a.txt.gz cannot be read", "cut off"]),
        ("a.txt.gz", b"not gzip", ["a.txt.gz cannot be read"]),
        ("a.txt.xz", lzma.compress(bytes(range(100)) * 99)[:-20], ["a.txt.xz cannot be read"]),
        ("a.txt.bz2", bz2.compress(b"some text" * 99)[:-20], ["a.txt.bz2 cannot be read"]),
        ("a.jsonl.zst", _zstd(LINES * 50)[:-9], ["a.jsonl.zst cannot be read"]),
        ("a.jsonl.zst", b"not zstd", ["a.jsonl.zst cannot be read"]),
        ("a.parquet", b"PAR1 and no more", ["a.parquet cannot be read as Parquet", "cut off"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_file_and_line(tmp_path: Path, name: str, content: bytes, says: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        _read(tmp_path / name)
    for part in says:
        assert part in str(caught.value)


def test_a_parquet_file_that_is_damaged_inside_is_told_by_row(tmp_path: Path) -> None:
    import random

    noise = random.Random(0)
    texts = ["".join(noise.choices("abcdefgh ", k=500)) for _ in range(3000)]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), file, row_group_size=500, write_page_checksum=True)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as Parquet after row \d+"):
        _read(file)


def test_a_column_that_is_missing_or_no_text_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'text'.*body, n"):
        _read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"column 'n' holds int64.*body"):
        _read(tmp_path / "a.parquet", "n")


@pytest.mark.parametrize("source", ["missing.txt", "a.pdf", "noend", "empty"])
def test_what_cannot_be_a_corpus_is_told(tmp_path: Path, source: str) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "noend").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"corpus\.source = .*{source}.*\.parquet"):
        corpus_files(str(tmp_path / source))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_long_document_comes_in_pieces_that_join_to_it(tmp_path: Path, name: str) -> None:
    text = "".join(f"Paragraph {number} of a long text.\n\n" for number in range(100_000)) + "é" * (
        PIECE_CHARACTERS * 2
    )
    file = tmp_path / name
    if name == "a.txt":
        file.write_text(text, encoding="utf-8")
    elif name == "a.jsonl":
        file.write_text(json.dumps({"text": text}) + "\n")
    else:
        pq.write_table(pa.table({"text": [text]}), file)
    pieces = _read(file)
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.continues for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert len({piece.doc_id for piece in pieces}) == 1
    assert pieces[0].text.endswith("\n\n"), "cut after a paragraph"
    assert max(len(piece.text) for piece in pieces) <= 3 * PIECE_CHARACTERS


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.parquet"])
def test_a_large_file_is_read_in_little_memory(tmp_path: Path, name: str) -> None:
    line = "The quick brown fox jumps over the lazy dog once more.\n"
    file = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": [line * 100] * 4000}), file, row_group_size=1000)
    else:
        entry = line.strip() * 40 + "\n" if name == "a.txt.gz" else json.dumps({"text": line * 100}) + "\n"
        with gzip.open(file, "wt", compresslevel=1) as stream:
            for _ in range(22_000_000 // len(entry)):
                stream.write(entry)
    tracemalloc.start()
    size = sum(len(document.text) for document in read_file(name, file, "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 12_000_000
