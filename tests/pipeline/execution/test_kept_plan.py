"""Runs grow: units and methods that are asked for later get further shards, and nothing is made again."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.kept_plan import KeptPlan, pool_of, shard_name, shards_of_pool
from pipeline.execution.runner import ALONE, discard, run_stage
from pipeline.execution.series import Progress
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context, Methods, Shard, Stage, chunks, numbered_shards
from pipeline.execution.survey import survey
from pipeline.schemas import TableSchema, column
from pipeline.storage.tables import Tables
from stages.settings import Explain, Record
from tests.pipeline.toy import toy_config

WORDS = TableSchema("words", 1, pa.schema([column("index", pa.int64(), "unit"), column("text", pa.string(), "words")]))
MARKS = TableSchema(
    "marks",
    1,
    pa.schema([column("index", pa.int64(), "unit"), column("others", pa.list_(pa.int64()), "units of the pool")]),
)
processed: list[str] = []
SAID = {"extra": ""}
"""What the words of a unit end with."""


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    units = config[Explain].units
    assert isinstance(units, dict)
    parts = chunks(sorted(units["layers.0.mlp"]), config[Record].shard_units)
    return numbered_shards({"module": "layers.0.mlp", "polarity": "+", "indices": part} for part in parts)


def methods(config: RunConfig) -> list[Methods]:
    return [{"explainer": name} for name in config[Explain].names]


def say(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    processed.append(shard.name)
    words = [f"{context.config[Explain].name} {index}{SAID['extra']}" for index in shard.key["indices"]]
    return {"words": pa.table({"index": shard.key["indices"], "text": words})}


def mark(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    processed.append(shard.name)
    pool = context.tables.read(WORDS, shards=shards_of_pool(shard))["index"].to_pylist()
    rows = [[other for other in sorted(pool) if other != index] for index in shard.key["indices"]]
    return {"marks": pa.table({"index": shard.key["indices"], "others": rows})}


def settings(config: RunConfig) -> dict[str, Any]:
    return {"candidates": config[Explain].candidates}


SAY = Stage("say", "say", (), (WORDS,), settings, plan, say, methods=methods)
MARK = Stage(
    "mark",
    "mark",
    ("say",),
    (MARKS,),
    lambda _: {},
    plan,
    mark,
    methods=methods,
    pool=lambda _, made_by: ("say", made_by),
)
STAGES: Mapping[str, Stage] = {"say": SAY, "mark": MARK}


def config_of(
    folder: Path, units: list[int], explainers: tuple[str, ...] = ("statistics",), **explain: Any
) -> RunConfig:
    config = toy_config(folder, size=2)
    section = config[Explain].model_copy(
        update={"units": {"layers.0.mlp": units}, "explainer": list(explainers), **explain}
    )
    return config.model_copy(update={"explain": section})


def run(config: RunConfig, how: Sharing = ALONE) -> Progress:
    processed.clear()
    run_stage(SAY, config, STAGES, how, show=False)
    return run_stage(MARK, config, STAGES, how, show=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def others(folder: Path) -> dict[int, list[int]]:
    rows = Tables(folder / "toy").read(MARKS).to_pylist()
    return {row["index"]: row["others"] for row in rows}


def test_more_units_add_shards_and_leave_the_others_as_they_are(tmp_path: Path) -> None:
    assert run(config_of(tmp_path, [3, 5, 9])).finished
    before = files(tmp_path)
    assert run(config_of(tmp_path, [3, 4, 5, 8, 9])).finished
    after = files(tmp_path)
    assert processed == ["statistics--00002", "statistics--00002"]
    assert {name: after[name] for name in before} == before
    assert sorted(Tables(tmp_path / "toy").read(WORDS)["index"].to_pylist()) == [3, 4, 5, 8, 9]


def test_controls_are_those_that_there_were_when_a_shard_was_planned(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5, 9]))
    run(config_of(tmp_path, [3, 4, 5, 9]))
    assert others(tmp_path) == {3: [5, 9], 5: [3, 9], 9: [3, 5], 4: [3, 5, 9]}


def test_a_further_explainer_adds_shards_of_its_own(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5]))
    before = files(tmp_path)
    assert run(config_of(tmp_path, [3, 5], ("statistics", "contrastive"))).finished
    assert processed == ["contrastive--00000", "contrastive--00000"]
    assert before.items() <= files(tmp_path).items()
    texts = Tables(tmp_path / "toy").read(WORDS)["text"].to_pylist()
    assert sorted(texts) == ["contrastive 3", "contrastive 5", "statistics 3", "statistics 5"]


def test_what_is_not_asked_for_any_more_stays(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5, 9], ("statistics", "contrastive")))
    before = files(tmp_path)
    assert run(config_of(tmp_path, [3])).finished
    assert processed == []
    assert files(tmp_path) == before


def test_units_that_are_dropped_before_they_are_done_are_not_computed(tmp_path: Path) -> None:
    run_stage(SAY, config_of(tmp_path, [1, 2, 3, 4, 5]), STAGES, Sharing((0, 3)), show=False)
    config = config_of(tmp_path, [1, 5])
    assert run(config).finished
    assert processed == ["statistics--00002", "statistics--00000"]
    assert [shard.key["indices"] for shard in survey(config, STAGES)["say"].shards] == [[1, 2], [5]]
    assert others(tmp_path)[5] == [1, 2]


def test_a_changed_shard_size_holds_for_further_shards(tmp_path: Path) -> None:
    run(config_of(tmp_path, [1, 2, 3]))
    larger = config_of(tmp_path, [1, 2, 3, 4, 5, 6])
    record = larger[Record].model_copy(update={"shard_units": 3})
    found = run(larger.model_copy(update={"record": record}))
    assert [shard.key["indices"] for shard in found.shards] == [[1, 2], [3], [4, 5, 6]]


def test_a_setting_that_changes_old_rows_is_refused_with_both_values(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5]))
    with pytest.raises(UserError, match=r"settings\.candidates: 4 -> 2"):
        survey(config_of(tmp_path, [3, 5, 7], candidates=2), STAGES)


def test_workers_that_plan_at_a_time_agree(tmp_path: Path) -> None:
    planned = plan(config_of(tmp_path, list(range(20))), Tables(tmp_path))

    def extend(_: int) -> list[Shard]:
        kept = KeptPlan(tmp_path, "say", "statistics")
        if further := kept.further(planned, {}):
            kept.extend(further)
        return KeptPlan(tmp_path, "say", "statistics").shards

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(extend, range(16)))
    assert all(shards == found[0] for shards in found)
    assert sorted(index for shard in found[0] for index in shard.key["indices"]) == list(range(20))


def test_what_was_planned_before_another_worker_was_faster_is_not_kept(tmp_path: Path) -> None:
    few, more = (plan(config_of(tmp_path, list(range(count))), Tables(tmp_path)) for count in (3, 5))
    early = KeptPlan(tmp_path, "say", "statistics").further(few, {})
    other = KeptPlan(tmp_path, "say", "statistics")
    other.extend(other.further(more, {}))
    KeptPlan(tmp_path, "say", "statistics").extend(early)
    kept = KeptPlan(tmp_path, "say", "statistics")
    assert [index for shard in kept.shards for index in shard.key["indices"]] == list(range(5))
    assert kept.further(few, {}) == []


def test_a_worker_that_planned_later_with_more_units_takes_over_the_plan(tmp_path: Path) -> None:
    run_stage(SAY, config_of(tmp_path, [1, 2, 3, 4]), STAGES, Sharing((0, 2)), show=False)
    run_stage(SAY, config_of(tmp_path, [1, 2, 3, 4, 5]), STAGES, Sharing((1, 2)), show=False)
    assert run(config_of(tmp_path, [1, 2, 3, 4, 5])).finished
    assert sorted(Tables(tmp_path / "toy").read(WORDS)["index"].to_pylist()) == [1, 2, 3, 4, 5]


def test_what_was_made_from_other_rows_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, [3, 5, 7])
    run(config)
    (tmp_path / "toy" / "words" / "statistics--00001.parquet").unlink()
    run(config)
    assert processed == ["statistics--00001"]  # the same rows: nothing else is made again
    (tmp_path / "toy" / "words" / "statistics--00001.parquet").unlink()
    SAID["extra"] = "!"
    try:
        assert run(config).finished
    finally:
        SAID["extra"] = ""
    assert processed == ["statistics--00001", "statistics--00000", "statistics--00001"]
    assert "mark: 2 shards are made anew" in capsys.readouterr().out


def test_redo_forgets_the_plan(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5]))
    run(config_of(tmp_path, [3, 4, 5]))
    discard(["say"], config_of(tmp_path, [3, 4, 5]), STAGES)
    assert not list((tmp_path / "toy").rglob("*.json"))
    run(config_of(tmp_path, [3, 4, 5]))
    assert others(tmp_path) == {3: [4, 5], 4: [3, 5], 5: [3, 4]}


def test_a_file_that_is_in_no_plan_stops_the_run(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5]))
    file = tmp_path / "toy" / "words" / "statistics--00000.parquet"
    file.with_name("statistics--00007.parquet").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"statistics--00007\.parquet belongs to no shard of say"):
        survey(config_of(tmp_path, [3, 5]), STAGES)


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    run(config_of(tmp_path, [3, 5]))
    [file] = (tmp_path / "toy" / "_plans" / "say").glob("*.json")
    whole = file.read_bytes()
    for damaged in (whole[:20], b"[]", whole.replace(b"[3,5]", b"[3,4]")):
        assert damaged != whole
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"statistics--0001\.json is damaged"):
            survey(config_of(tmp_path, [3, 5]), STAGES)


def test_the_pool_names_runs_of_shards() -> None:
    names = [shard_name("a--b", number) for number in (0, 1, 2, 5, 7, 8)]
    pool = pool_of(names)
    assert pool == {"methods": "a--b", "shards": [[0, 2], [5, 5], [7, 8]]}
    assert shards_of_pool(Shard("x", json.loads(json.dumps({"pool": pool})))) == names
    assert shards_of_pool(Shard("x", {"pool": pool_of([])})) == []
    assert shards_of_pool(Shard("x", {})) is None


def test_stages_without_units_keep_their_plan_in_their_files(tmp_path: Path) -> None:
    fixed = replace(SAY, plan=lambda *_: [Shard("part-00000", {"all": True})], methods=lambda _: ({},), process=lambda *_: {
        "words": pa.table({"index": [1], "text": ["a"]})
    })  # fmt: skip
    run_stage(fixed, config_of(tmp_path, [1]), {"say": fixed}, show=False)
    assert (tmp_path / "toy" / "words" / "part-00000.parquet").is_file()
    assert not (tmp_path / "toy" / "_plans").exists()
