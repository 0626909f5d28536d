"""What recording all MLP neurons of two large models takes, by `estimate`: the cost table of the README.

The models are configurations alone: GPT-2 XL, and one of the shape of Llama 3 8B. The table is Markdown; the last line
is the same as JSON.

Run it with `python -m tests.benchmarks.bench_sizes`.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig

from pipeline.config.run_file import parse_config
from pipeline.subjects.loading.model_loading import skeleton
from pipeline.subjects.loading.model_source import layer_count
from stages.record.record_sizes import RecordSizes, record_sizes
from stages.settings import SECTIONS, Record

SEQUENCES, TOKENS = 60_000, 64
LAYERS = 4
"""Layers of a run that records a few."""
PARTS = 16


MODELS = (
    ("GPT-2 XL", "gpt2-xl", GPT2Config(n_layer=48, n_embd=1600, n_head=25)),
    (
        "8B Llama",
        "llama-8b",
        LlamaConfig(
            vocab_size=128_256,
            hidden_size=4096,
            intermediate_size=14_336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            tie_word_embeddings=False,
        ),
    ),
)


def sizes(folder: Path, layers: int | None = None, parts: int = 1) -> RecordSizes:
    """The estimate for the first layers of a model, or all, with the corpus scanned in some parts."""
    modules = [f"layers.{number}.mlp" for number in range(layer_count(str(folder)))][:layers]
    batch = Record().batch_size
    values: dict[str, Any] = {
        "run": {"name": "sizes", "folder": str(folder)},
        "subject": {"model": str(folder), "modules": modules},
        "corpus": {"source": "unused.txt", "seq_len": TOKENS, "max_sequences": SEQUENCES},
        "record": {"shard_sequences": -(-SEQUENCES // parts // batch) * batch},
    }
    return record_sizes(parse_config(values, "sizes.toml", SECTIONS))


def forward_flops(folder: Path, config: PreTrainedConfig, tokens: int = SEQUENCES * TOKENS) -> float:
    """FLOPs of the layers over some tokens: two for each weight and token; attention's own are below 1 % at 64 tokens."""
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    parameters = sum(weight.numel() for weight in skeleton(str(folder)).parameters())
    return float(2 * (parameters - tables) * tokens)


def column(folder: Path, config: PreTrainedConfig) -> dict[str, str]:
    """The rows of the table for one model."""
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    everything, some, parts = sizes(folder), sizes(folder, LAYERS), sizes(folder, parts=PARTS)
    return {
        "MLP neurons, all layers": f"{everything.units:,}",
        f"forward passes, {SEQUENCES:,} x {TOKENS} tokens": f"{everything.forward_passes:,}",
        "FLOPs of these": f"{forward_flops(folder, config):.1e}",
        "memory of the recorder, all layers": gib(everything.memory),
        f"the same, {LAYERS} layers in a run": gib(some.memory),
        "disk of partial records until they are merged, corpus in one part": gib(everything.partials),
        f"the same, in {PARTS} parts": gib(parts.partials),
        "disk of `units`, `token_means` and `exemplars`": gib(everything.tables),
    }


def gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def print_table(columns: Mapping[str, Mapping[str, str]]) -> None:
    """Columns with the same rows, as Markdown and, in the last line, as JSON."""
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(found[row] for found in columns.values()) + " |")
    print(json.dumps(columns))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        print_table({title: column(Path(name) / model, config) for title, model, config in MODELS})


if __name__ == "__main__":
    main()
