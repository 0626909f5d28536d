"""A run made up of random numbers, of any size, in the real tables: what pages are made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schemas import (
    CORPUS,
    DETAILS,
    EXEMPLARS,
    EXPLANATIONS,
    NEGATIVES,
    SIMULATIONS,
    UNIT_TOKENS,
    UNITS,
    TableSchema,
)
from pipeline.storage.shards import writer_options
from stages.score.score_units import SCORES

WORDS = ["the", " red", " fox", " sea", " old", " ran", " home", " 1984", " dog", " seven", ".", "\n"]
LENGTH = 64
BANDS = [("top", "explain", 20), ("top", "select", 10), ("top", "report", 10)]
BANDS += [("random", "explain", 20), ("random", "select", 10), ("random", "report", 10), ("quantile", "explain", 5)]
UNITS_A_FILE = 512


def write_run(
    root: Path,
    units: int = 6,
    sequences: int = 200,
    words: Sequence[str] = WORDS,
    texts: Sequence[str] = ("words about {}",),
    module_units: int = 4,
) -> Path:
    """A run of units of modules layers.0.mlp, layers.1.mlp, ..., each explained by one of `texts` in turn."""
    rng = np.random.default_rng(0)
    seq_ids = np.arange(sequences)
    drawn = rng.integers(len(words), size=(sequences, LENGTH)).tolist()
    corpus: dict[str, Any] = {
        "seq_id": seq_ids,
        "split": ["explain"] * sequences,
        "doc_id": [f"document {number // 4}" for number in seq_ids],
        "start": (seq_ids % 4) * LENGTH,
        "token_ids": [np.zeros(LENGTH, np.int32)] * sequences,
        "tokens": [[words[one] for one in row] for row in drawn],
    }
    _write(root, CORPUS, 0, corpus)
    for number, start in enumerate(range(0, units, UNITS_A_FILE)):
        index = np.arange(start, min(units, start + UNITS_A_FILE))
        keys = {"module": [f"layers.{one // module_units}.mlp" for one in index], "index": index % module_units}
        _write_units(root, number, keys, rng, [texts[one % len(texts)].format(one) for one in index.tolist()])
        _write_exemplars(root, number, keys, rng, sequences)
    return root


def _write_units(root: Path, number: int, keys: dict[str, Any], rng: np.random.Generator, texts: list[str]) -> None:
    count = len(texts)
    token = {"token_id": 1, "token": WORDS[1], "mean_activation": 0.5, "count": 7, "value": 2.5}
    edges = np.concatenate([-np.geomspace(4, 0.01, 60), np.geomspace(0.01, 4, 60)])
    counts = np.histogram(rng.normal(size=4096), edges)[0]
    statistics = {name: rng.random(count) for name in ("mean", "variance", "skewness", "kurtosis", "density")}
    lists = {
        "histogram_edges": [edges] * count,
        "histogram_counts": [counts] * count,
        "top_tokens": [[token] * 30] * count,
    }
    ends = {"n_tokens": [4096] * count, "min": [-4.0] * count, "max": [4.0] * count}
    _write(root, UNITS, number, keys | statistics | lists | ends)
    _write(root, UNIT_TOKENS, number, keys | {name: [[token] * 10] * count for name in ("promoted", "suppressed")})
    explained = keys | {
        "polarity": ["+"] * count,
        "explainer": ["statistics"] * count,
        "candidate": [0] * count,
        "text": texts,
        "status": ["ok"] * count,
    }
    asked = {"model": ["a model"] * count, "prompt_id": ["a prompt"] * count, "reply": texts}
    asked["asked"] = [f"Text\n\t<b>{text}</b>" for text in texts]
    _write(root, EXPLANATIONS, number, explained | asked)
    score = rng.normal(0.3, 0.2, count)
    numbers = {"correlation": score, "ci_low": score - 0.1, "ci_high": score + 0.1, "p_value": rng.random(count)}
    controls = {name: rng.normal(0, 0.05, count) for name in ("correlation_shuffled", "correlation_lookup")}
    _write(root, SCORES, number, explained | numbers | controls | {"simulator": ["word"] * count})


def _write_exemplars(root: Path, number: int, keys: dict[str, Any], rng: np.random.Generator, sequences: int) -> None:
    count, each = len(keys["index"]), sum(size for _, _, size in BANDS)
    unit = np.repeat(np.arange(count), each)
    activations = rng.normal(size=(len(unit), LENGTH)).astype(np.float32)
    activations[:, 0] = np.nan
    peak = np.nanargmax(activations, axis=1)
    kept = {
        **{name: np.array(values)[unit] for name, values in keys.items()},
        "polarity": ["+"] * len(unit),
        "band": np.tile(np.repeat([band for band, _, _ in BANDS], [size for _, _, size in BANDS]), count),
        "split": np.tile(np.repeat([split for _, split, _ in BANDS], [size for _, _, size in BANDS]), count),
        "rank": np.tile(np.concatenate([np.arange(size) for _, _, size in BANDS]), count),
        "seq_id": np.concatenate([rng.permutation(max(sequences, each))[:each] % sequences for _ in range(count)]),
        "peak": peak,
        "max_activation": activations[np.arange(len(unit)), peak],
        "activations": _lists(activations),
    }
    _write(root, EXEMPLARS, number, kept)
    first = np.arange(0, len(unit), each)
    best = {name: np.asarray(kept[name])[first] for name in ("module", "index", "polarity", "seq_id", "peak", "rank")}
    pairs = [[{"from": 3, "to": 5, "value": 1.5}]] * count
    _write(root, DETAILS, number, best | {"pairs": pairs, "attribution": None})
    low = {"band": ["similar"] * count, "split": ["explain"] * count, "max_activation": [0.25] * count}
    _write(root, NEGATIVES, number, best | low | {"activations": _lists(activations[first] / np.float32(9))})
    report = np.flatnonzero(np.asarray(kept["split"]) == "report")
    simulated = {name: np.asarray(kept[name])[report] for name in ("module", "index", "polarity", "seq_id", "split")}
    expected = np.clip(3 * activations[report], 0, 10).round(2)
    same = {"explainer": "statistics", "candidate": 0, "simulator": "word", "control": "", "status": "ok"}
    same_rows = {name: [value] * len(report) for name, value in same.items()}
    _write(root, SIMULATIONS, number, simulated | same_rows | {"expected": _lists(expected)})


def _lists(rows: npt.NDArray[np.float32]) -> pa.Array:
    """Rows of floats as an arrow column; NaN is null."""
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(rows.ravel().astype(np.float32), from_pandas=True))


def _write(root: Path, table: TableSchema, number: int, columns: dict[str, Any]) -> None:
    arrays = []
    for field in table.schema:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(len(next(iter(columns.values()))), field.type)
        arrays.append(
            pa.array(values, field.type, from_pandas=True)
            if not isinstance(values, pa.Array)
            else values.cast(field.type)
        )
    rows = pa.table(arrays, schema=table.schema)
    path = root / table.path / f"part-{number:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, table.schema, **writer_options(table, rows)) as writer:
        writer.add_key_value_metadata({"schema": table.tag, "seconds": "1.5", "created_by": "neurogloss test"})
        writer.write_table(
            rows, row_group_size=64 * max(1, rows.num_rows // max(1, UNITS_A_FILE)) if table.units_per_group else 1024
        )
