"""A run is read again as a whole: whatever is wrong with it is named by its file, and what is right is not."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.repair import repair_run
from pipeline.commands.run import run_pipeline
from pipeline.commands.verify import verify, verify_run
from pipeline.errors import UserError
from pipeline.storage.file_checks import Units, check_file, units_of
from pipeline.storage.tables import Tables
from stages import STAGES
from stages.score.score_units import SCORES
from tests.pipeline.commands.published_run import publish_run, publish_table, rows_of_run
from tests.pipeline.storage.damage import flip, flip_at
from tests.pipeline.toy import NUMBERS, SQUARES, TOY, processed, toy_config


def file(root: Path, table: str) -> Path:
    return root / table / "part-00000.parquet"


def republished(table: str, change: Callable[[list[dict[str, object]]], object]) -> Callable[[Path], Path]:
    """Publishes a table of the run again with changed rows."""

    def damage(root: Path) -> Path:
        schema, rows = rows_of_run()[table]
        change(rows)
        return publish_table(root, table, schema, rows)

    return damage


def truncated(root: Path) -> Path:
    file(root, "units").write_bytes(file(root, "units").read_bytes()[:-50])
    return file(root, "units")


def flipped(root: Path) -> Path:
    flip(file(root, "explanations"), "text")
    return file(root, "explanations")


def of_another_table(root: Path) -> Path:
    file(root, "scores").write_bytes(file(root, "explanations").read_bytes())
    return file(root, "scores")


def about_other_units(root: Path) -> Path:
    schema, rows = rows_of_run()["scores"]
    return publish_table(root, "scores", schema, rows, {"module": "layers.0.mlp", "polarity": "+", "indices": [0]})


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "flipped": (flipped, "in the column text, a checksum does not fit"),
    "truncated": (truncated, "truncated or not a Parquet file"),
    "other table": (of_another_table, "holds the table explanations/3, not scores/3"),
    "twice": (republished("scores", lambda rows: rows.append(rows[0])), "1 rows are there twice by module, index"),
    "no explanation": (
        republished("scores", lambda rows: rows[1].update(candidate=7)),
        "1 rows have no row in explanations by module, index, polarity, explainer, candidate",
    ),
    "simulated nothing": (
        republished("simulations", lambda rows: rows[0].update(explainer="x")),
        "no row in explanations",
    ),
    "no exemplars": (republished("exemplars", lambda rows: rows.__delitem__(slice(8, 16))), "no row in exemplars"),
    "no sequence": (republished("exemplars", lambda rows: rows[3].update(seq_id=99)), "no row in corpus by seq_id"),
    "two splits": (republished("exemplars", lambda rows: rows[3].update(split="explain")), "more than one split"),
    "one place twice": (republished("corpus", lambda rows: rows[3].update(start=0)), "twice by doc_id, start"),
    "other units": (about_other_units, "1 of its rows are about units that its shard does not cover"),
}


def test_nothing_is_wrong_with_a_run_as_it_was_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = publish_run(tmp_path / "run")
    assert verify_run(root, STAGES)
    assert "6 files with 38 rows" in capsys.readouterr().out


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    damage, words = WRONG[name]
    root = publish_run(tmp_path / "run")
    path = damage(root)
    assert not verify_run(root, STAGES)
    out = capsys.readouterr().out
    assert words in out
    if name not in {"no exemplars"}:  # there the explanations have none
        assert f"{path}\n    " in out
    assert f"python -m pipeline repair {root}" in out


def test_a_file_that_duckdb_alone_cannot_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = publish_run(tmp_path / "run")
    path = file(root, "scores")
    sound = path.read_bytes()
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    for bit in range(footer * 8, len(sound) * 8):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if not check_file(path, SCORES)[1] and not read_by_duckdb(path):
            break
    assert not verify_run(root, STAGES)
    assert f"{path}\n    DuckDB cannot read it" in capsys.readouterr().out


def read_by_duckdb(path: Path) -> bool:
    try:
        return bool(duckdb.execute(f"SELECT count(*) FROM '{path}'").fetchall())
    except duckdb.Error:
        return False


def test_a_partial_file_without_its_footer_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = publish_run(tmp_path / "run")
    path = root / "_partials" / "units" / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    assert not verify_run(root, STAGES)
    assert f"{path}\n    " in capsys.readouterr().out
    repair_run(root, STAGES, "")
    assert verify_run(root, STAGES)


def test_other_rows_under_an_old_footer_do_not_have_its_digest(tmp_path: Path) -> None:
    root = publish_run(tmp_path / "run")
    path = file(root, "scores")
    said = pq.read_metadata(path).metadata
    table = pq.read_table(path)
    other = table.set_column(
        table.schema.names.index("correlation"), table.schema.field("correlation"), pa.array([1.0, 1.0])
    )
    with pq.ParquetWriter(path, table.schema.remove_metadata()) as writer:
        writer.write_table(other.cast(table.schema.remove_metadata()))
        writer.add_key_value_metadata({key: value for key, value in said.items() if key != b"ARROW:schema"})
    [problem] = verify(root, STAGES).problems
    assert (problem.path, problem.text) == (
        path,
        "its rows are not those that were written, by the digest in its footer",
    )


def test_statistics_that_would_hide_rows_are_found(tmp_path: Path) -> None:
    root = publish_run(tmp_path / "run")
    path = file(root, "exemplars")
    place, data = path.stat().st_size, path.read_bytes()
    while (
        pq.read_metadata(path).row_group(0).column(5).statistics.max == 7
    ):  # it stands in the footer, and in an index before it
        place = data.rindex((7).to_bytes(8, "little"), 0, place)
        flip_at(path, place)
    [problem] = verify(root, STAGES).problems
    assert problem.path == path
    assert problem.text == "the statistics of its row group 0 are wrong for seq_id, so that rows are passed over"


def test_shards_that_lack_are_told_and_are_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = publish_run(tmp_path / "run")
    file(root, "scores").rename(root / "scores" / "part-00002.parquet")
    assert verify_run(root, STAGES)
    assert "2 shards of score (part-00000, part-00001)" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="outputs/demo"):
            verify(folder, STAGES)


def test_the_units_of_a_shard_are_known_by_what_it_covers() -> None:
    assert units_of('{"module": "m", "indices": [3, 5]}') == Units("m", frozenset({3, 5}))
    assert units_of('{"module": "m", "start": 2, "stop": 4}') == Units("m", range(2, 4))
    assert units_of('{"module": "m", "first": 2, "last": 4}') == Units("m", range(2, 5))
    assert units_of('{"module": "m", "units": [2, 4]}') == Units("m", range(2, 5))
    assert units_of('{"module": "m"}') == Units("m", None)
    for other in ('{"start": 2, "stop": 4}', "[]", "", '{"module"'):
        assert units_of(other) is None


def test_repair_moves_what_is_damaged_and_the_run_makes_exactly_that_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy_config(tmp_path)
    run_pipeline(config, TOY, list(TOY))
    rows = Tables(config.root).read(SQUARES)
    bad = Tables(config.root).files(SQUARES)[1]
    damaged = bytearray(bad.read_bytes())
    damaged[6] ^= 8
    bad.write_bytes(damaged)
    processed.clear()
    repair_run(config.root, TOY, "my.toml")
    out = capsys.readouterr().out
    assert "squares: part-00001.parquet: " in out
    assert "labels: part-00001.parquet: belongs to squares/part-00001.parquet" in out
    assert "python -m pipeline run --config my.toml" in out
    [kept] = config.root.glob("_damaged/*/squares/part-00001.parquet")
    assert kept.read_bytes() == damaged
    run_pipeline(config, TOY, list(TOY))
    assert processed == ["square part-00001"]
    assert Tables(config.root).read(SQUARES).equals(rows)
    assert verify_run(config.root, TOY, config)
    repair_run(config.root, TOY, "")
    assert "nothing was moved" in capsys.readouterr().out


def test_what_was_made_from_other_rows_is_told_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy_config(tmp_path)
    run_pipeline(config, TOY, list(TOY))
    path = Tables(config.root).files(NUMBERS)[0]
    said = {
        key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items() if key != b"ARROW:schema"
    }
    with pq.ParquetWriter(path, NUMBERS.schema) as writer:
        writer.add_key_value_metadata(said | {"content": "0" * 32})
    assert not verify_run(config.root, TOY)
    with pq.ParquetWriter(path, NUMBERS.schema) as writer:
        writer.add_key_value_metadata(said | {"content": ""})
    assert verify_run(config.root, TOY)
    capsys.readouterr()
    assert not verify_run(config.root, TOY, config)
    assert (
        "made from other rows than there are now, the next run makes them again: 3 shards of square"
        in capsys.readouterr().out
    )
    assert json.loads(said["read"]) == {}
