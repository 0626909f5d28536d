"""Shards that wait for servers are under way together, and are published one by one as they end."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution import progress, shard_work
from pipeline.execution.concurrency import TURN
from pipeline.execution.runner import run_stage
from pipeline.execution.series import Progress
from pipeline.execution.stage import Context, ModelUse, Shard, Stage
from pipeline.storage.tables import Tables
from tests.pipeline.toy import COUNT, NUMBERS, toy_config

Work = Callable[[Shard, Context], Awaitable[Mapping[str, pa.Table]]]


def waiting(process: Work, limit: int) -> Stage:
    return replace(
        COUNT,
        process=process,
        asks=lambda _: ModelUse(LanguageModel(model="m", base_url="http://127.0.0.1:9/v1", concurrency=limit), ""),
    )


def run(stage: Stage, folder: Path) -> Progress:
    return run_stage(stage, toy_config(folder), {"count": stage}, show=False)


def rows(shard: Shard) -> Mapping[str, pa.Table]:
    return {"numbers": pa.table({"n": shard.key["numbers"]})}


def test_a_shard_is_published_while_an_earlier_one_still_waits(tmp_path: Path) -> None:
    published = asyncio.Event()
    turns: list[tuple[str, int]] = []

    async def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        turns.append((shard.name, TURN.get()))
        if shard.name == "part-00000":
            await published.wait()
            assert "part-00001.parquet" in [path.name for path in context.tables.files(NUMBERS)]
        elif shard.name == "part-00002":
            published.set()
        return rows(shard)

    assert run(waiting(process, 2), tmp_path).finished
    assert turns == [("part-00000", 0), ("part-00001", 1), ("part-00002", 2)]
    assert sorted(Tables(tmp_path / "toy").read(NUMBERS)["n"].to_pylist()) == list(range(10))


def test_one_bad_shard_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        await asyncio.sleep(0)
        if shard.name == "part-00001":
            raise ZeroDivisionError("thirteen")
        return rows(shard)

    assert run(waiting(process, 3), tmp_path).broken == ["part-00001"]
    assert "ZeroDivisionError: thirteen" in capsys.readouterr().out
    assert len(Tables(tmp_path / "toy").files(NUMBERS)) == 2


def test_a_mistake_of_the_user_stops_all_and_gives_connections_back(tmp_path: Path) -> None:
    closed: list[bool] = []
    cancelled: list[str] = []

    class Connection:
        async def aclose(self) -> None:
            closed.append(True)

    async def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        context.once("engine", lambda config: Connection())
        if shard.name == "part-00002":
            raise UserError("wrong key")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(shard.name)
            raise
        return rows(shard)

    with pytest.raises(UserError, match="wrong key"):
        run(waiting(process, 3), tmp_path)
    assert closed == [True]
    assert sorted(cancelled) == ["part-00000", "part-00001"]


def test_the_times_of_shards_side_by_side_add_up_to_the_time_of_the_run(tmp_path: Path) -> None:
    async def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        await asyncio.sleep(0.1)
        return rows(shard)

    started = time.perf_counter()
    pace = run(waiting(process, 3), tmp_path).seconds_per_shard
    assert pace is not None
    assert 3 * pace <= time.perf_counter() - started


def test_what_requests_take_is_told_while_a_shard_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        def taken(self) -> str:
            return "3 requests, 1 failed"

    async def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        context.once("engine", lambda _: Model())
        await context.gather(asyncio.sleep, [0.0, 0.0], 1, units=1)
        await asyncio.sleep(0.05)
        return rows(shard)

    monkeypatch.setattr(shard_work, "SECONDS_BETWEEN_NOTES", 0.02)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    units = [
        replace(shard, key={**shard.key, "indices": [0]})
        for shard in COUNT.plan(toy_config(tmp_path), Tables(tmp_path))
    ]
    stage = replace(waiting(process, 1), plan=lambda *_: units)
    run_stage(stage, toy_config(tmp_path), {"count": stage})
    lines = capsys.readouterr().err.splitlines()
    assert any(
        re.search(r": 0 of 3 shards .*1 of 3 units, 00:00 left, 3 requests, 1 failed$", line) for line in lines
    ), lines
