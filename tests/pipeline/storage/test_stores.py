"""A run's folder in an object store: files whole or not at all, nothing replaced unasked, one owner of each claim."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from pipeline.errors import ClaimLost, UserError
from pipeline.schemas import UNIT_TOKENS, TableSchema
from pipeline.storage import stores
from pipeline.storage.atomic_files import atomic_path, publish_once
from pipeline.storage.claim_files import claims_in
from pipeline.storage.claims import Claims
from pipeline.storage.footers import footer, read_footer, read_footers
from pipeline.storage.shards import publish
from pipeline.storage.stores import files_in, is_remote, place, scratch, state, states
from pipeline.storage.tables import KeptFiles, Tables, is_pruned, prune
from pipeline.storage.temporary_names import leftovers, temporary_path
from tests.object_store import new_bucket

TABLE = TableSchema(
    "numbers",
    1,
    pa.schema([("module", pa.string()), ("index", pa.int32()), ("value", pa.float32())]),
    units_per_group=4,
    temporary=True,
)


@pytest.fixture
def root() -> Iterator[Path]:
    with new_bucket() as bucket:
        yield place(f"{bucket}/outputs/demo")


def numbers(first: int, count: int = 10) -> pa.Table:
    index = np.arange(first, first + count, dtype=np.int32)
    return pa.table({"module": ["m"] * count, "index": index, "value": index.astype(np.float32)}, schema=TABLE.schema)


def published(tables: Tables) -> list[Path]:
    for number in range(3):
        said = footer({"settings": {}}, {"module": "m", "start": 10 * number, "stop": 10 * number + 10}, 0.0)
        publish(tables.file(TABLE, f"part-{number:05d}"), numbers(10 * number), TABLE, said, lambda: None)
    return tables.files(TABLE)


def test_a_path_without_a_scheme_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place("outputs") == Path("outputs")
    assert place("~/outputs") == tmp_path / "outputs"
    assert not is_remote(place("outputs"))


def test_a_place_in_a_store_has_the_methods_of_a_path(root: Path) -> None:
    assert is_remote(root)
    assert (str(root / "units" / "a.parquet"), (root / "a.json").stem) == (f"{root}/units/a.parquet", "a")
    assert root.absolute() == root == root.resolve()
    assert not root.is_dir()
    assert publish_once(root / "units" / "a.json", b"{}")
    assert root.is_dir()
    assert [path.name for path in root.iterdir()] == ["units"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("nowhere://bucket/run", "nowhere://bucket/run"), ("s3://no-such-bucket-anywhere/run", "no-such-bucket-anywhere")],
)
def test_a_store_that_is_not_there_is_named(root: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        place(text)


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match="bucket-not-here"):
        place("s3://bucket-not-here/run")


def test_a_file_is_there_once_all_of_it_is(root: Path) -> None:
    path = root / "notes" / "a.json"
    with pytest.raises(ValueError, match="stop"), atomic_path(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ValueError("stop")
    assert not path.exists()
    assert not temporary.exists()
    with atomic_path(path) as temporary:
        temporary.write_text("whole", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "whole"
    assert not temporary.exists()


def test_a_published_file_is_never_replaced(root: Path) -> None:
    path = root / "units" / "part-00000.parquet"
    assert publish_once(path, b"first")
    assert not publish_once(path, b"second")
    with pytest.raises(ClaimLost), atomic_path(path, lambda: None) as temporary:
        temporary.write_bytes(b"third")
    assert path.read_bytes() == b"first"


def test_one_of_several_writers_publishes(root: Path) -> None:
    start = threading.Barrier(8)

    def write(number: int) -> bool:
        start.wait()
        return publish_once(root / "plan.json", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        first = [number for number, made in enumerate(pool.map(write, range(8))) if made]
    assert [int((root / "plan.json").read_bytes())] == first


def test_what_a_killed_process_was_writing_is_found(root: Path) -> None:
    path = root / "units" / "part-00000.parquet"
    ours = temporary_path(path)
    theirs = ours.with_name(ours.name.replace(f"-{os.getpid()}-", "-999999999-"))
    ours.write_bytes(b"")
    theirs.write_bytes(b"")
    try:
        assert leftovers(path.parent) == [theirs]
        assert leftovers(path.parent, "part-00000.parquet") == [theirs]
        assert leftovers(path.parent, "part-00001.parquet") == []
        assert leftovers(root / "scores") == []
    finally:
        ours.unlink()
        theirs.unlink()


def test_changed_contents_are_told_apart(root: Path) -> None:
    path = root / "a.json"
    stores.put(path, b"one", new=True)
    before = state(path)
    assert states([path, root / "none.json"]) == [before, None]
    stores.put(path, b"two", new=False)
    assert state(path) != before
    with pytest.raises(FileNotFoundError):
        state(root / "none.json")


def test_files_that_others_add_are_seen(root: Path) -> None:
    assert files_in(root, "*.json") == []
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    for name in ("b.json", "a.json", ".c.json", "d.txt", "folder/e.json"):
        other.pipe_file(f"{str(root).removeprefix('s3://')}/{name}", b"{}")
        files_in(root, "*.json")
    assert [path.name for path in files_in(root, "[!.]*.json")] == ["a.json", "b.json"]


def test_tables_are_read_as_from_a_disk(root: Path, tmp_path: Path) -> None:
    there, here = Tables(root), Tables(tmp_path)
    files, where = published(there), pc.field("index") >= 17
    published(here)
    assert [path.name for path in files] == [path.name for path in here.files(TABLE)]
    assert there.read(TABLE).equals(here.read(TABLE))
    assert there.read(TABLE, where, ["value"]).equals(here.read(TABLE, where, ["value"]))
    assert pa.Table.from_batches(there.batches(TABLE)).equals(here.read(TABLE))
    assert there.count(TABLE) == 30
    one, *_ = files
    assert read_footers(files, TABLE)[one] == read_footer(one, TABLE)
    assert read_footer(one, TABLE).content == read_footer(here.files(TABLE)[0], TABLE).content


def test_only_the_row_groups_asked_for_are_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs.core import S3File

    tables, fetched = Tables(root), list[int]()
    size = 200_000
    rows = pa.table(
        {
            "module": ["m"] * size,
            "index": np.arange(size, dtype=np.int32),
            "value": np.random.default_rng(0).random(size, np.float32),
        },
        schema=TABLE.schema,
    )
    table = TableSchema("numbers", 1, TABLE.schema, units_per_group=20_000)
    publish(tables.file(table, "part-00000"), rows, table, footer({}, {}, 0.0))
    fetch = S3File._fetch_range

    def counted(file: Any, start: int, end: int) -> bytes:
        fetched.append(end - start)
        content: bytes = fetch(file, start, end)
        return content

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    assert tables.read(table, tables.is_unit("m", [70_000])).num_rows == 1
    assert sum(fetched) < tables.files(table)[0].stat().st_size / 2


def test_damage_is_named(root: Path) -> None:
    tables = Tables(root)
    file = published(tables)[1]
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    stores.put(file, bytes(content), new=False)
    with pytest.raises(UserError, match=r"part-00001\.parquet is damaged"):
        tables.read(TABLE)
    stores.put(file, bytes(content[:50]), new=False)
    with pytest.raises(UserError, match=r"part-00001\.parquet is damaged"):
        read_footers(tables.files(TABLE), TABLE)


def test_a_file_that_is_emptied_while_it_is_read_is_noticed(root: Path) -> None:
    tables = Tables(root)
    kept = KeptFiles(published(tables))
    kept.check()
    prune(tables, [TABLE])
    assert all(map(is_pruned, tables.files(TABLE)))
    with pytest.raises(RuntimeError, match="replaced while it was read"):
        kept.check()


def test_one_worker_holds_a_claim(root: Path) -> None:
    with Claims(claims_in(root), 60) as one, Claims(claims_in(root), 60) as other:
        claim = one.take("score", "part-00000")
        assert claim
        assert other.take("score", "part-00000") is None
        assert one.holds(claim)
        assert set(other.held("score")) == {"part-00000"}
        one.release(claim)
        assert other.held("score") == {}
        assert other.take("score", "part-00000")


def test_of_many_that_want_a_claim_one_gets_it(root: Path) -> None:
    workers, start = [Claims(claims_in(root), 60) for _ in range(8)], threading.Barrier(8)

    def take(claims: Claims) -> bool:
        start.wait()
        return claims.take("score", "part-00000") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, workers)) == 1


def test_the_claim_of_a_worker_that_stopped_is_taken_over(root: Path) -> None:
    store = claims_in(root)
    stopped = Claims(store, 60)
    claim = stopped.take("score", "part-00000")
    assert claim
    with Claims(store, 0.3) as other:
        end = time.monotonic() + 10
        while (taken := other.take("score", "part-00000")) is None and time.monotonic() < end:
            time.sleep(0.05)
        assert taken
        assert not stopped.holds(claim)


class Overwriting(MemoryFileSystem):
    """A store that does not know of puts with a condition."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **options)


def test_a_store_that_replaces_what_it_should_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert claims_in(place("memory://runs/demo")).names("score") == []
    monkeypatch.setitem(_registry, "memory", Overwriting)
    with pytest.raises(UserError, match="use another store"):
        claims_in(place("memory://runs/other"))


def test_databases_and_logs_have_a_folder_on_the_disk(root: Path, tmp_path: Path) -> None:
    assert scratch(tmp_path) == tmp_path
    assert not is_remote(scratch(root))
    assert scratch(root) == scratch(place(str(root))) != scratch(root / "other")


def test_every_table_fits(root: Path) -> None:
    rows = UNIT_TOKENS.schema.empty_table()
    publish(Tables(root).file(UNIT_TOKENS, "part-00000"), rows, UNIT_TOKENS, footer({}, {}, 0.0))
    assert Tables(root).read(UNIT_TOKENS).num_rows == 0


def test_a_key_in_an_address_is_not_shown() -> None:
    with pytest.raises(UserError) as told:
        place("ftp://me:secret@host/runs")
    assert "secret" not in str(told.value)
