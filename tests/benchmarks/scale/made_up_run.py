"""A run of any size in which only models are made up: the stages that need one draw their rows, and all others are the real ones.

Plans, claims, footers, digests and files are those of a real run, so that every command takes it for one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import save_file

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Rows, Shard
from pipeline.execution.survey import Stages
from pipeline.schemas import CORPUS, EXPLANATIONS, SIMULATIONS, TableSchema
from stages import STAGES
from stages.evidence import RecordedUnits, split_of
from stages.record.partial_tables import PARTIALS
from stages.score.score_units import SCORES
from stages.settings import SECTIONS, Record
from tests.benchmarks.made_up_partials import MadeUpScan

WIDTH = 10_000
"""Units of a module at most."""
TOKENS = 16
"""Of a sequence."""
PART = 4096
"""Sequences of a part of the corpus."""
VOCABULARY = 24
PER_SPLIT = {"explain": 2, "select": 2, "report": 2}
"""Sequences of each unit, of the strongest and of those drawn at random; by default there are 85 in all."""
SHARD_UNITS = 256
"""Explained and simulated by one shard, as docs/cluster.md advises for large runs."""
WORDS = [
    "river",
    "stone",
    "light",
    "winter",
    "garden",
    "letter",
    "window",
    "colour",
    "number",
    "city",
    "music",
    "names",
]
CONTROLS = {"": 0, "shuffled": 1, "lookup": 0}
"""By control, how far away the unit is whose explanation is simulated."""
Array = npt.NDArray[Any]


def open_config(folder: Path, units: int, sequences: int) -> RunConfig:
    """The run file of a run in FOLDER/run; the model that it names is a configuration alone, and is written first."""
    modules = max(1, units // WIDTH)
    model = folder / "model"
    if not model.exists():
        model.mkdir(parents=True)
        sizes = {"model_type": "llama", "num_hidden_layers": modules, "intermediate_size": units // modules}
        (model / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
        save_file({}, model / "model.safetensors")
        (folder / "unused.txt").write_text("nothing of this is read", encoding="utf-8")
    kept = {"top": PER_SPLIT, "random": PER_SPLIT, "per_band": dict.fromkeys(PER_SPLIT, 0)}
    values: dict[str, Any] = {
        "run": {"name": "run", "folder": str(folder), "keep_partials": True},
        "subject": {"model": str(model), "modules": [f"layers.{number}.mlp" for number in range(modules)]},
        "corpus": {"source": str(folder / "unused.txt"), "seq_len": TOKENS, "max_sequences": sequences},
        "record": {**kept, "polarities": ["+"], "top_tokens": 8, "weight_tokens": 0, "shard_sequences": PART},
        "explain": {"shard_units": SHARD_UNITS},
        "simulate": {"shard_units": SHARD_UNITS, "controls": 1},
        "score": {"bootstrap": 100},
    }
    return parse_config(values, "the run file of the benchmark", SECTIONS)


def made_up_stages(config: RunConfig) -> Stages:
    """The stages of the pipeline; those that need a model make up their rows."""
    made_up: dict[str, Callable[[Shard, Context], Rows]] = {
        "corpus": corpus_rows,
        "record.scan": partial(scan_rows, width=width_of(config)),
        "explain": explanation_rows,
        "simulate": simulation_rows,
    }
    return {name: replace(one, process=made_up[name]) if name in made_up else one for name, one in STAGES.items()}


def width_of(config: RunConfig) -> int:
    """Units of each module."""
    sizes = json.loads((Path(config.subject.model) / "config.json").read_text(encoding="utf-8"))
    return int(sizes["intermediate_size"])


def corpus_rows(_: Shard, context: Context) -> Rows:
    """Sequences of tokens drawn at random; four of one split are a document."""

    def pieces() -> Iterator[pa.Table]:
        for start in range(0, context.config.corpus.max_sequences, CORPUS.rows_per_group):
            seq_ids = np.arange(start, min(start + CORPUS.rows_per_group, context.config.corpus.max_sequences))
            ids = np.random.default_rng(start).integers(VOCABULARY, size=(len(seq_ids), TOKENS), dtype=np.int32)
            texts = np.array([f" {WORDS[number % len(WORDS)]}{number}" for number in range(VOCABULARY)])
            columns = {
                "seq_id": seq_ids,
                "split": [split_of(number) for number in seq_ids.tolist()],
                "doc_id": [f"document {number // 16}-{number % 4}" for number in seq_ids],
                "start": seq_ids % 16 // 4 * TOKENS,
                "token_ids": _lists(ids),
                "tokens": _lists(texts[ids]),
            }
            yield _table(CORPUS, columns)

    return {CORPUS.name: pieces()}


def scan_rows(shard: Shard, context: Context, width: int) -> Rows:
    """The partial tables of a part of the corpus, one module after the other."""
    scan = MadeUpScan(context.config[Record], PART, TOKENS, VOCABULARY)
    part, modules = shard.key["start"] // PART, context.config.subject.modules

    def of_all(table: str) -> Iterator[pa.Table]:
        for module in modules:
            yield from scan.rows(table, module, width, part)

    return {table.name: of_all(table.name) for table in PARTIALS}


def explanation_rows(shard: Shard, _: Context) -> Rows:
    """One explanation for each unit."""
    indices = np.asarray(shard.key["indices"])
    texts = _texts(indices)
    said = {"text": texts, "asked": [f"Explain unit {one}: " + 12 * text for one, text in enumerate(texts)]}
    keys = {"explainer": "statistics", "candidate": 0, "model": "", "prompt_id": "", "status": "ok"}
    counts = {"prompt_tokens": 0, "completion_tokens": 0}
    return {EXPLANATIONS.name: _table(EXPLANATIONS, {**_unit(shard), "index": indices, **keys, **counts, **said})}


def _texts(indices: Array) -> list[str]:
    return [f"words about {WORDS[one % 12]}, {WORDS[one // 12 % 12]} and the year {one}" for one in indices.tolist()]


def simulation_rows(shard: Shard, context: Context) -> Rows:
    """What is expected of each unit on its sequences, by its explanation and by two controls; all of it is noise."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    found = RecordedUnits.of(context).sequences(module, indices, ("select", "report"), polarity)
    rows = [
        (index, control, index + away, seq_id, split)
        for index, pairs in found.items()
        for control, away in CONTROLS.items()
        for seq_id, split in pairs
        if split == "report" or not control
    ]
    index, control, source, seq_id, split = zip(*rows, strict=True)
    keys = {"explainer": "statistics", "candidate": 0, "simulator": "word", "model": "", "prompt_id": ""}
    rng = np.random.default_rng([len(module), indices[0]])
    expected = rng.uniform(0, 10, (len(rows), TOKENS)).round(1).astype(np.float32)
    lists = {"expected": _lists(expected), "coverage": _lists(np.ones_like(expected))}
    own = {"index": index, "control": control, "source": source, "seq_id": seq_id, "split": split}
    ends = {"source_candidate": 0, "prompt_tokens": 0, "completion_tokens": 0, "status": "ok"}
    return {SIMULATIONS.name: _table(SIMULATIONS, {**_unit(shard), **keys, **own, **lists, **ends})}


def score_rows(shard: Shard, _: Context) -> Rows:
    """One score for each unit, drawn at random."""
    indices = np.asarray(shard.key["indices"])
    rng = np.random.default_rng([len(shard.key["module"]), indices[0]])
    drawn = {one.name: rng.normal(0.3, 0.2, len(indices)) for one in SCORES.schema if pa.types.is_floating(one.type)}
    drawn["p_value"] = rng.uniform(0.5, 1.0, len(indices))  # one control, so none can be below
    counts = {"candidate": 0, "n_shuffled": 1, "n_candidates": 1, "n_sequences": 4, "n_tokens": 60}
    keys = {"explainer": "statistics", "simulator": "word", "status": "ok"}
    return {
        SCORES.name: _table(
            SCORES, {**_unit(shard), "index": indices, **keys, **counts, **drawn, "text": _texts(indices)}
        )
    }


def _unit(shard: Shard) -> Mapping[str, Any]:
    return {"module": shard.key["module"], "polarity": shard.key["polarity"]}


def _table(table: TableSchema, columns: Mapping[str, Any]) -> pa.Table:
    """Rows by columns; a single value stands in all of them, and a column that is left out is null."""
    rows = next(len(values) for values in columns.values() if not isinstance(values, str | int))

    def column(field: pa.Field) -> pa.Array:
        values = columns.get(field.name)
        if values is None or isinstance(values, str | int):
            return pa.repeat(pa.scalar(values, field.type), rows)
        return values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)

    return pa.table([column(field) for field in table.schema], schema=table.schema)


def _lists(values: Array) -> pa.Array:
    """A list for each row of a matrix."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(values.ravel()))
