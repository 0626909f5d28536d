"""Readings in sequences go shard by shard too: what is finished stays, processes share the work, rows do not depend on the cuts."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from pipeline.config import RunConfig
from pipeline.execution.runner import run_stage
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context, Shard
from pipeline.execution.survey import survey
from stages import STAGES
from stages.sasc.ngram_scan import SCAN, process
from stages.sasc.sasc_tables import NULLS
from tests.stages.sasc.small_run import BOTH, GOOD, run_file, run_ngrams, table

MODULES = ["layers.0.mlp", GOOD, "layers.1.sae:small"]
FEW = {"explain": 3, "select": 2, "report": 2}
READINGS = ["in_context", "recorded"]

pytestmark = pytest.mark.usefixtures("in_place")


def reading_run(place: Path, name: str, reading: str, modules: list[str] = MODULES, **sasc: Any) -> RunConfig:
    settings = {"nulls": 20, "max_ngrams": 80, "reading": reading} | sasc
    return run_file(place, name, modules, {"top": FEW, "random": FEW}, BOTH, **settings)


def keys_of(config: RunConfig) -> list[Mapping[str, Any]]:
    return [shard.key for shard in survey(config, STAGES)["ngrams.scan"].shards]


@pytest.mark.parametrize("reading", [pytest.param("in_context", marks=pytest.mark.slow), "recorded"])
def test_rows_do_not_depend_on_the_shards(place: Path, reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_ngrams(reading_run(place, f"whole-{reading}", reading))
    monkeypatch.setattr("stages.sasc.readings.SHARD_UNITS", 7)
    monkeypatch.setattr("stages.sasc.ngram_merge.SHARD_UNITS", 9)
    config = reading_run(place, f"cut-{reading}", reading, shard_ngrams=25)
    cut = run_ngrams(config)
    keys = keys_of(config)
    asked = [key for key in keys if key["modules"] == [GOOD, NULLS]]
    assert [(key["start"], key["stop"]) for key in asked] == [(0, 25), (25, 50), (50, 75), (75, 80)]
    assert len(keys) - len(asked) == {"in_context": 2, "recorded": 4 + 3}[reading]
    for name in ("responses", "ngrams"):
        pd.testing.assert_frame_equal(table(cut, name), table(whole, name), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("reading", READINGS)
def test_rows_of_a_module_do_not_depend_on_the_other_modules(place: Path, reading: str) -> None:
    root = run_ngrams(reading_run(place, f"together-{reading}", reading, units=9))
    module = "layers.0.mlp"
    alone = run_ngrams(reading_run(place, f"alone-{reading}", reading, [module], units=9, nulls=0))
    for name in ("responses", "ngrams"):
        found = table(root, name)
        own = found[found["module"] == module].reset_index(drop=True)
        assert len(own) >= 18
        pd.testing.assert_frame_equal(own, table(alone, name), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("reading", READINGS)
def test_an_interrupted_scan_keeps_its_shards_and_processes_share_the_rest(
    place: Path, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = run_ngrams(reading_run(place, f"calm-{reading}", reading))
    monkeypatch.setattr("stages.sasc.readings.SHARD_UNITS", 7)
    config = reading_run(place, f"interrupted-{reading}", reading, shard_ngrams=25)
    done: list[Shard] = []

    def interrupted(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shard)
        return process(shard, context)

    stages = STAGES | {"ngrams.scan": dataclasses.replace(SCAN, process=interrupted)}
    for name in ("corpus", "record.scan", "record.merge", "ngrams.list"):
        run_stage(stages[name], config, stages, show=False)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stages["ngrams.scan"], config, stages, show=False)
    partials = config.root / "_ngrams" / "partials"
    stamps = {path: path.stat().st_mtime_ns for path in partials.iterdir()}
    assert [path.stem for path in sorted(stamps)] == [shard.name for shard in done]
    planned = len(keys_of(config))
    for part in ((0, 2), (1, 2)):
        before = len(list(partials.iterdir()))
        run_stage(SCAN, config, STAGES, Sharing(part), show=False)
        assert len(list(partials.iterdir())) > before
    assert len(list(partials.iterdir())) == planned
    root = run_ngrams(config)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), (
        "a finished shard was computed again"
    )
    for name in ("responses", "ngrams"):
        pd.testing.assert_frame_equal(table(root, name), table(calm, name), check_exact=True)


@pytest.mark.parametrize("reading", READINGS)
def test_modules_without_a_unit_have_no_shard(place: Path, reading: str) -> None:
    config = reading_run(place, f"listed-{reading}", reading, nulls=0, units={"layers.0.mlp": [5, 2]})
    root = run_ngrams(config)
    assert [key["modules"] for key in keys_of(config)] == [["layers.0.mlp"]]
    assert set(table(root, "responses")["index"]) == {2, 5}
