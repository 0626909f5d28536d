"""The status shows what language models were used for, without asking them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.commands.status import status_table
from pipeline.config import LanguageModel, RunConfig
from pipeline.execution.runner import run_stage
from pipeline.execution.stage import ModelUse, Shard, Stage
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.schemas import TableSchema, column
from pipeline.storage.tables import Tables
from tests.pipeline.toy import toy_config

ANSWERS = TableSchema(
    "answers",
    1,
    pa.schema(
        [
            column("model", pa.string(), "model"),
            column("prompt_tokens", pa.int32(), "read"),
            column("completion_tokens", pa.int32(), "written"),
        ]
    ),
)
URL = "http://127.0.0.1:9/v1"


def asking(engine: LanguageModel, *rows: tuple[str, int | None, int | None]) -> Mapping[str, Stage]:
    """A stage that asks a language model and writes these rows."""

    def plan(config: RunConfig, tables: Tables) -> list[Shard]:
        return [Shard("part-00000", {})]

    def process(shard: Shard, context: Any) -> Mapping[str, pa.Table]:
        return {"answers": pa.table(dict(zip(ANSWERS.schema.names, zip(*rows, strict=True), strict=True)))}

    return {
        "ask": Stage(
            "ask", "ask", (), (ANSWERS,), lambda config: {}, plan, process, asks=lambda _: ModelUse(engine, "")
        )
    }


def status(folder: Path, engine: LanguageModel, *rows: tuple[str, int | None, int | None]) -> str:
    stages = asking(engine, *rows)
    run_stage(stages["ask"], toy_config(folder), stages, show=False)
    return status_table(toy_config(folder), stages)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"base_url": URL, "price_in": 2.0, "price_out": 500.0}, "0.0310"),
        ({"base_url": URL, "price_in": 2.0}, "unknown"),
        ({}, "-"),
    ],
)
def test_tokens_and_cost_by_model(fields: dict[str, Any], cost: str, tmp_path: Path) -> None:
    printed = status(tmp_path, LanguageModel(model="m", **fields), ("m", 400, 30), ("m", 100, 30), ("", None, None))
    used = printed.partition("Used by the finished shards:")[2]
    assert used.splitlines()[-1].split() == ["ask", "m", "500", "60", cost]


def test_a_run_without_tokens_shows_none(tmp_path: Path) -> None:
    assert "tokens" not in status(tmp_path, LanguageModel(model="m"), ("", 0, 0))


def test_all_that_was_paid_for_by_workers_that_ended(tmp_path: Path) -> None:
    folder = toy_config(tmp_path).root / "_replies"
    for worker, tokens in (("0-of-2", 1000), ("1-of-2", 30)):
        replies = ResponseCache(folder, worker)
        replies.put(b"key", Answer({}, tokens, 5), model="m", seconds=0.1, cost=None)
        replies.put_lost(7, 1, model="m", why="cut", cost=None)
        replies.close()
    busy = ResponseCache(folder, "0-of-1")
    printed = status(tmp_path, LanguageModel(model="m", base_url=URL), ("", 0, 0))
    busy.close()
    assert printed.splitlines()[-1].split() == ["m", "4", "1,044", "12"]
    assert "Paid for, without the workers at work now (0-of-1):" in printed
