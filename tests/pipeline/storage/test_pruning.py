"""Rows that a finished stage alone has read leave the disk; nothing that is needed does, and nobody takes them for lost."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.commands.run import run_pipeline
from pipeline.commands.status import status_table
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.shared_shards import Sharing, open_claims
from pipeline.execution.stage import Stage
from pipeline.execution.survey import survey
from pipeline.schemas import TableSchema, column
from pipeline.storage.footers import footer, read_footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import KeptFiles, Tables, is_pruned, prune, rows_by_module
from tests.pipeline.toy import COUNT, NUMBERS, SQUARE, SQUARES, processed, toy_config

LATER = replace(SQUARE, name="later", writes=(TableSchema("later", 1, NUMBERS.schema),), reads=("square",))
TEMPORARY = replace(COUNT, writes=(replace(NUMBERS, temporary=True),))
STAGES: Mapping[str, Stage] = {"count": TEMPORARY, "square": SQUARE, "later": LATER}
"""`square` takes the rows of `count` with it; shards are parts of 4 of 10 numbers. `later` is not run."""


def run(config: RunConfig, part: tuple[int, int] = (0, 1), redo: str = "") -> int:
    return run_pipeline(config, STAGES, ["count", "square"], Sharing(part), redo)


def spent(config: RunConfig) -> list[bool]:
    return [is_pruned(path) for path in Tables(config.root).files(NUMBERS)]


def test_rows_leave_once_their_reader_is_finished_and_the_run_stays_finished(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run(config)
    tables = Tables(config.root)
    assert tables.read(SQUARES)["n"].to_pylist() == [n * n for n in range(10)]
    assert spent(config) == [True] * 3
    assert tables.count(NUMBERS) == 0
    assert [progress.finished for progress in survey(config, STAGES).values()] == [True, True, False]
    assert re.search(r"^count +3 +0 +0 ", status_table(config, STAGES), re.M)
    before = list(processed)
    run(config)
    assert processed == before


def test_they_stay_while_another_worker_needs_them(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run_pipeline(config, STAGES, ["count"])
    run(config, (0, 2))
    assert spent(config) == [False] * 3
    run(config, (1, 2))
    assert spent(config) == [True] * 3


def test_they_stay_where_the_run_file_says_so_and_leave_when_it_no_longer_does(tmp_path: Path) -> None:
    config = toy_config(tmp_path, keep_partials=True)
    run(config)
    assert spent(config) == [False] * 3
    run(config, redo="square")
    run(toy_config(tmp_path))
    assert spent(config) == [True] * 3


def test_a_shard_that_failed_keeps_them(tmp_path: Path) -> None:
    config = toy_config(tmp_path, count=20)
    assert run(config) == 1
    assert not any(spent(config))


def test_the_footer_stays_and_says_what_was_held(tmp_path: Path) -> None:
    units = TableSchema("units", 1, pa.schema([column("module", pa.string(), "m")]))
    tables = Tables(tmp_path)
    path = tables.file(units, "part-00000")
    publish(path, pa.table({"module": ["a", "a", "b"]}), units, footer({"x": 1}, {"y": 2}, 3.0))
    before = read_footer(path)
    for _ in range(2):
        prune(tables, [units])
        assert replace(read_footer(path), rows=3) == before
        assert rows_by_module(path) == {"a": 2, "b": 1}
        assert tables.read(units).equals(units.schema.empty_table())


def test_a_stage_whose_input_is_gone_cannot_be_made_anew_alone(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run(config)
    with pytest.raises(UserError, match=r"--redo count.*run\.keep_partials"):
        run(config, redo="square")
    assert Tables(config.root).count(SQUARES) == 10
    run(config, redo="count")
    assert Tables(config.root).count(SQUARES) == 10


def test_a_lost_shard_of_it_is_not_made_of_nothing(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run(config)
    Tables(config.root).files(SQUARES)[1].unlink()
    with pytest.raises(UserError, match=r"square reads .*numbers, whose rows were removed"):
        run(config)


def test_what_was_cut_off_half_way_is_carried_on(tmp_path: Path) -> None:
    config = toy_config(tmp_path, keep_partials=True)
    run(config)
    tables = Tables(config.root)
    kept = tables.files(NUMBERS)[2].read_bytes()
    prune(tables, [NUMBERS])
    tables.files(NUMBERS)[2].write_bytes(kept)
    assert spent(config) == [True, True, False]
    code = "import sys; from pathlib import Path; from pipeline.storage.temporary_names import temporary_path; "
    code += "temporary_path(Path(sys.argv[1])).touch()"
    subprocess.run([sys.executable, "-c", code, str(tables.folder(NUMBERS) / "part-00002.parquet")], check=True)
    [left] = tables.folder(NUMBERS).glob(".*.tmp-*")
    run(toy_config(tmp_path))
    assert spent(config) == [True] * 3
    assert not left.exists()


def test_they_stay_while_another_worker_still_reads_them(tmp_path: Path) -> None:
    config = toy_config(tmp_path, keep_partials=True)
    run(config)
    config = toy_config(tmp_path)
    with open_claims(config) as claims:
        reading = claims.take("square", "part-00000")
        assert reading
        run(config)
        assert spent(config) == [False] * 3
        claims.release(reading)
        run(config)
    assert spent(config) == [True] * 3


def test_one_worker_at_a_time_removes_them(tmp_path: Path) -> None:
    config = toy_config(tmp_path, keep_partials=True)
    run(config)
    config = toy_config(tmp_path)
    with open_claims(config) as claims:
        claims.take("_prune", "count")
        run(config)
        assert spent(config) == [False] * 3


def test_rows_that_leave_while_they_are_read_are_an_error_and_not_an_empty_table(tmp_path: Path) -> None:
    table, tables = replace(NUMBERS, temporary=True), Tables(tmp_path)
    publish(tables.file(table, "part-00000"), pa.table({"n": [1, 2]}), table, footer({"x": 1}, {"y": 2}, 3.0))
    assert tables.read(table).num_rows == 2
    kept = KeptFiles(tables.files(table))
    kept.check()
    prune(tables, [table])
    with pytest.raises(RuntimeError, match=r"part-00000\.parquet was replaced while it was read"):
        kept.check()
    with pytest.raises(RuntimeError, match=r"the rows of .*part-00000\.parquet were removed"):
        tables.read(table)
