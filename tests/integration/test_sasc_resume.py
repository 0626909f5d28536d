"""SASC killed at any moment, above all while n-grams are evaluated: the same command carries on to the same tables."""

import random
from pathlib import Path

import pytest

from pipeline.storage.tables import Tables
from stages import STAGES, TABLES
from stages.sasc.sasc_tables import NGRAM_PARTIALS
from tests.integration.kills import kill_at_random, published
from tests.integration.reduced import all_rows, call
from tests.integration.small_sasc import write_run_file

KILLS, SHARDS = 6, 12
NGRAMS = 10 * SHARDS


@pytest.mark.slow
def test_kills_leave_the_tables_of_an_undisturbed_run(tmp_path: Path) -> None:
    calm = write_run_file(tmp_path / "calm", NGRAMS, shard=NGRAMS, units=8)
    done = call("run", "--config", str(calm))
    assert done.returncode == 0, done.stderr
    file, folder = write_run_file(tmp_path / "killed", NGRAMS, shard=10, units=4), tmp_path / "killed" / "sasc"
    moments = random.Random(5)
    seen: dict[Path, tuple[int, int]] = {}
    within_scan = interrupted = 0
    for _ in range(KILLS):
        interrupted += kill_at_random(file, folder, moments)
        now = published(folder)
        assert all(now[path] == stamp for path, stamp in seen.items()), "a finished shard was computed again"
        seen = now
        within_scan += 0 < len(Tables(folder).files(NGRAM_PARTIALS)) < SHARDS
    assert interrupted >= KILLS // 2
    assert within_scan >= 2, "no kill fell into the evaluation of n-grams"
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert len(Tables(folder).files(NGRAM_PARTIALS)) == SHARDS
    now = published(folder)
    assert all(now[path] == stamp for path, stamp in seen.items())
    assert not list(folder.rglob(".*.tmp-*"))
    wanted, found = all_rows(tmp_path / "calm" / "sasc"), all_rows(folder)
    for name in (table.name for stage in STAGES.values() if stage.method == "sasc" for table in stage.writes):
        if name in TABLES:
            assert found[name].num_rows > 0
            assert found[name].equals(wanted[name]), name
