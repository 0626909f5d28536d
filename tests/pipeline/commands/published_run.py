"""A finished run of two units, made up, small, and published as runs are."""

from pathlib import Path
from typing import Any

from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, SIMULATIONS, UNITS, TableSchema
from pipeline.storage.footers import footer
from pipeline.storage.shards import publish
from stages.score.score_units import SCORES

SPLITS = ["explain", "select", "explain", "report"]
UNITS_OF = {UNITS.name, EXEMPLARS.name}
Rows = list[dict[str, Any]]


def rows_of_run() -> dict[str, tuple[TableSchema, Rows]]:
    """Its tables with their rows."""
    units = [{"module": "layers.0.mlp", "index": index} for index in range(2)]
    of = [unit | {"polarity": "+"} for unit in units]
    explained = [unit | {"explainer": "e", "candidate": 0, "text": "words", "status": "ok"} for unit in of]
    keys = [
        {name: row[name] for name in ("module", "index", "polarity", "explainer", "candidate")} for row in explained
    ]
    texts = {"doc_id": "d", "token_ids": [1, 2], "tokens": ["a", "b"]}
    return {
        "corpus": (CORPUS, [{"seq_id": n, "split": SPLITS[n % 4], "start": 2 * n, **texts} for n in range(8)]),
        "units": (UNITS, units),
        "exemplars": (
            EXEMPLARS,
            [
                unit
                | {
                    "band": "top",
                    "split": SPLITS[number % 4],
                    "rank": number,
                    "seq_id": number,
                    "activations": [0.5, 1],
                }
                for unit in of
                for number in range(8)
            ],
        ),
        "explanations": (EXPLANATIONS, explained),
        "simulations": (
            SIMULATIONS,
            [
                row
                | {
                    "simulator": "s",
                    "control": "",
                    "source": row["index"],
                    "seq_id": number,
                    "split": SPLITS[number % 4],
                }
                for row in keys
                for number in (1, 3, 5, 7)
            ],
        ),
        "scores": (SCORES, [row | {"simulator": "s", "correlation": 0.5, "status": "ok"} for row in keys]),
    }


def publish_table(root: Path, name: str, table: TableSchema, rows: Rows, shard: dict[str, Any] | None = None) -> Path:
    """Write one table of it as its only file."""
    units = {"start": 0, "stop": 2} if name in UNITS_OF else {"polarity": "+", "indices": [0, 1]}
    key = {"sequences": "all"} if name == "corpus" else {"module": "layers.0.mlp", **units}
    path = root / name / "part-00000.parquet"
    publish(path, table.of_rows(rows), table, footer({"stage": name, "settings": {}}, shard or key, 1.0))
    return path


def publish_run(root: Path) -> Path:
    """The whole run in a folder."""
    for name, (table, rows) in rows_of_run().items():
        publish_table(root, name, table, rows)
    return root
