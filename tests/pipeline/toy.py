"""Two small stages: `count` writes numbers by shard, `square` reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Shard, Stage, chunks
from pipeline.schemas import TableSchema, column
from pipeline.storage.tables import Tables
from stages.settings import SECTIONS, Record

NUMBERS = TableSchema("numbers", 1, pa.schema([column("n", pa.int64(), "a number")]))
SQUARES = TableSchema(
    "squares", 1, pa.schema([column("n", pa.int64(), "n"), column("status", pa.string(), "ok or failed")])
)
LABELS = TableSchema("labels", 1, pa.schema([column("label", pa.string(), "a label")]))

processed: list[str] = []
"""Names of the shards that were computed, in order."""


def _shards(config: RunConfig, tables: Tables) -> list[Shard]:
    parts = chunks(list(range(config.corpus.max_sequences)), config[Record].shard_units)
    return [Shard(f"part-{number:05d}", {"numbers": part}) for number, part in enumerate(parts)]


def _count(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    processed.append(f"count {shard.name}")
    return {"numbers": pa.table({"n": shard.key["numbers"]})}


def _square(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    processed.append(f"square {shard.name}")
    if 13 in shard.key["numbers"]:
        raise ZeroDivisionError("thirteen")
    numbers = [n for n in context.tables.read(NUMBERS)["n"].to_pylist() if n in shard.key["numbers"]]
    rows = {"n": [n * n for n in numbers], "status": ["failed" if n == 7 else "ok" for n in numbers]}
    return {"squares": pa.table(rows), "labels": pa.table({"label": [str(n) for n in numbers]})}


COUNT = Stage(
    "count",
    "count",
    (),
    (NUMBERS,),
    lambda config: {"seed": config.run.seed},
    _shards,
    _count,
    check=lambda config: None,
)
SQUARE = Stage(
    "square", "square", ("count",), (SQUARES, LABELS), lambda config: {}, _shards, _square, splits=("report",)
)
TOY: Mapping[str, Stage] = {"count": COUNT, "square": SQUARE}


def toy_config(folder: Path, count: int = 10, size: int = 4, **run: Any) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "toy", "folder": str(folder), **run},
            "subject": {"model": "m", "modules": ["layers.0.mlp"]},
            "corpus": {"source": "c.txt", "max_sequences": count},
            "record": {"shard_units": size},
        },
        "toy.toml",
        SECTIONS,
    )
