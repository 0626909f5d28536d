"""The contract of a stage: done is done, a changed setting stops the run, one bad shard does not."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.run import parse_part, run_pipeline
from pipeline.errors import UserError
from pipeline.execution.runner import discard, run_stage
from pipeline.execution.series import Progress
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context
from pipeline.execution.survey import survey
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables
from stages.evidence import RecordedUnits
from tests.pipeline.toy import COUNT, NUMBERS, SQUARE, SQUARES, TOY, processed, toy_config


@pytest.fixture(autouse=True)
def _nothing_processed() -> Iterator[None]:
    processed.clear()
    yield
    processed.clear()


def run(
    name: str, folder: Path, part: tuple[int, int] = (0, 1), count: int = 10, size: int = 4, seed: int = 0
) -> Progress:
    return run_stage(TOY[name], toy_config(folder, count, size, seed=seed), TOY, Sharing(part), show=False)


def squares(folder: Path) -> list[int]:
    found: list[int] = Tables(folder / "toy").read(SQUARES)["n"].to_pylist()
    return found


def test_a_stage_runs_once_and_then_is_done(tmp_path: Path) -> None:
    assert run("count", tmp_path).finished
    run("square", tmp_path)
    first = list(processed)
    assert run("count", tmp_path).finished
    assert run("square", tmp_path).finished
    assert processed == first
    assert squares(tmp_path) == [n * n for n in range(10)]


def test_a_stage_waits_for_what_it_reads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="square reads count, which is not finished"):
        run("square", tmp_path)


def test_parts_together_make_the_whole(tmp_path: Path) -> None:
    parts = [run("count", tmp_path, (i, 2)) for i in range(2)]
    assert [part.finished for part in parts] == [False, True]
    assert processed == ["count part-00000", "count part-00002", "count part-00001"]


def test_only_what_is_missing_is_computed_again(tmp_path: Path) -> None:
    run("count", tmp_path)
    (tmp_path / "toy" / "numbers" / "part-00001.parquet").unlink()
    processed.clear()
    assert run("count", tmp_path).finished
    assert processed == ["count part-00001"]


def test_a_shard_with_one_of_its_two_tables_is_not_done(tmp_path: Path) -> None:
    run("count", tmp_path)
    run("square", tmp_path)
    (tmp_path / "toy" / "labels" / "part-00000.parquet").unlink()
    assert [shard.name for shard in survey(toy_config(tmp_path), TOY)["square"].todo] == ["part-00000"]
    assert run("square", tmp_path).finished
    assert sorted(squares(tmp_path)) == [n * n for n in range(10)]


def test_a_changed_setting_stops_with_what_changed_and_two_ways_on(tmp_path: Path) -> None:
    run("count", tmp_path)
    with pytest.raises(UserError) as caught:
        run("count", tmp_path, seed=5)
    text = str(caught.value)
    assert "settings.seed: 0 -> 5" in text
    assert "run.name" in text
    assert "--redo count" in text


def test_a_change_upstream_stops_the_stage_that_read_it(tmp_path: Path) -> None:
    run("count", tmp_path)
    run("square", tmp_path)
    discard(["count"], toy_config(tmp_path), {"count": COUNT})
    run_stage(COUNT, toy_config(tmp_path, seed=5), {"count": COUNT}, show=False)
    with pytest.raises(UserError, match=r"upstream\.count: .* -> "):
        run("square", tmp_path, seed=5)


def test_a_changed_shard_size_stops_instead_of_mixing_two_plans(tmp_path: Path) -> None:
    run("count", tmp_path)
    with pytest.raises(UserError, match="shard size"):
        run("count", tmp_path, size=5)
    with pytest.raises(UserError, match="shard size"):
        run("count", tmp_path, size=10)


def test_a_new_version_of_the_code_stops_the_run(tmp_path: Path) -> None:
    run("count", tmp_path)
    with pytest.raises(UserError, match="version: 1 -> 2"):
        survey(toy_config(tmp_path), {"count": replace(COUNT, version=2)})


def test_a_foreign_file_in_a_table_stops_the_run(tmp_path: Path) -> None:
    run("count", tmp_path)
    pq.write_table(pa.table({"n": [1]}), tmp_path / "toy" / "numbers" / "part-00077.parquet")
    with pytest.raises(UserError, match="part-00077"):
        run("count", tmp_path)


def test_a_file_of_another_table_does_not_count_as_done(tmp_path: Path) -> None:
    run("count", tmp_path)
    run("square", tmp_path)
    folder = tmp_path / "toy"
    shutil.copyfile(folder / "labels" / "part-00000.parquet", folder / "squares" / "part-00000.parquet")
    with pytest.raises(UserError, match=r"squares/part-00000\.parquet holds the table labels/1, not squares/1"):
        survey(toy_config(tmp_path), TOY)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    run("count", tmp_path)
    file = tmp_path / "toy" / "numbers" / "part-00001.parquet"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match=r"part-00001\.parquet is damaged: it is truncated"):
        run("square", tmp_path)


def test_one_bad_shard_does_not_stop_the_others_and_is_retried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("count", tmp_path, count=20)
    after = run("square", tmp_path, count=20)
    assert after.broken == ["part-00003"]
    assert [shard.name for shard in after.todo] == ["part-00003"]
    assert "ZeroDivisionError: thirteen" in capsys.readouterr().out
    processed.clear()
    run("square", tmp_path, count=20)
    assert processed == ["square part-00003"]


def test_a_run_with_failures_says_how_many_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pipeline(toy_config(tmp_path, count=20), TOY, list(TOY)) == 1
    assert "1 of 5 shards of square failed" in capsys.readouterr().out


def test_failed_rows_are_counted(tmp_path: Path) -> None:
    run("count", tmp_path)
    assert run("square", tmp_path).failed_rows == 1


def test_redo_discards_a_stage_and_those_after_it(tmp_path: Path) -> None:
    run("count", tmp_path)
    run("square", tmp_path)
    discard(["square"], toy_config(tmp_path), TOY)
    assert len(Tables(tmp_path / "toy").files(NUMBERS)) == 3
    assert Tables(tmp_path / "toy").files(SQUARES) == []
    run("square", tmp_path)
    discard(["count"], toy_config(tmp_path), TOY)
    assert Tables(tmp_path / "toy").files(SQUARES) == Tables(tmp_path / "toy").files(NUMBERS) == []


def test_redo_takes_a_stage_or_the_group_of_its_name(tmp_path: Path) -> None:
    second = replace(SQUARE, name="toy.square", reads=("toy.count",))
    later = replace(second, name="later", writes=(TableSchema("later", 1, NUMBERS.schema),))
    stages = {"toy.count": replace(COUNT, name="toy.count"), "toy.square": second, "later": later}
    config = toy_config(tmp_path, size=40)
    counts = {}
    for redo in ("", "toy.square", "toy", ""):
        processed.clear()
        run_pipeline(config, stages, ["toy.count", "toy.square"], redo=redo)
        counts[redo] = [line.split()[0] for line in processed]
    assert counts == {"toy.square": ["square"], "toy": ["count", "square"], "": []}


def test_a_mistake_found_by_a_check_stops_before_anything_is_written(tmp_path: Path) -> None:
    def refuse(config: object) -> None:
        raise UserError("no such model")

    stages = {"count": COUNT, "square": replace(SQUARE, check=refuse)}
    with pytest.raises(UserError, match="no such model"):
        run_pipeline(toy_config(tmp_path), stages, list(stages))
    assert list(tmp_path.iterdir()) == []


def test_a_stage_cannot_read_a_split_that_is_not_its_own(tmp_path: Path) -> None:
    context = Context(toy_config(tmp_path), SQUARE)
    with pytest.raises(PermissionError, match="explain"):
        RecordedUnits(context).exemplars("layers.0.mlp", [0], ["explain"])
    with pytest.raises(PermissionError, match="select"):
        RecordedUnits(context).sequences("layers.0.mlp", [0], ["report", "select"])


@pytest.mark.parametrize("text", ["3", "3/3", "4/3", "a/b", "-1/3", "0/0"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="I/N"):
        parse_part(text)


def test_a_shard_is_counted_from_0() -> None:
    assert parse_part("3/16") == (3, 16)
