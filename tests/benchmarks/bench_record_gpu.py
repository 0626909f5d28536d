"""What recording costs beside the bare forward pass on a GPU.

The model has the sizes of GPT-2 XL and random weights in bfloat16; its tokens are drawn with falling frequencies, as in text. All
MLP neurons are recorded in both polarities. Bare and recording passes take turns over the same batches, each timed from a
device at rest to a device at rest. The last line is JSON:

    total_ratio         seconds of a recording pass over those of the bare one right before it, median of the last half
    total_ratio_run     seconds of all recording passes over those of all bare ones, with the first, in which every exemplar is new
    bare_ms             a bare pass, median
    tokens_per_second   of recording passes, in the last half
    peak_mb             memory of the GPU at its peak, the model included
    read_seconds        time in which the state is made into tables once all is recorded

Run it with `python -m tests.benchmarks.bench_record_gpu [--batch-size 32] [--batches 64] [--backend torch]`. Without a GPU it
says so and ends well; `--size tiny --device cpu` runs it anywhere.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2Model

from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.architecture import stack
from stages.record.recorded_batch import TokenTable
from stages.record.scan import Recorder
from stages.settings import Record

SIZES = {
    "gpt2-xl": GPT2Config(n_layer=48, n_embd=1600, n_head=25),
    "tiny": GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=500),
}


def open_source(size: str, device: torch.device) -> ModelActivations:
    """All MLPs of a random model."""
    torch.manual_seed(0)
    with device:
        model = GPT2Model(SIZES[size]).to(torch.bfloat16).eval()
    sites = find_hook_points(model, [f"layers.{number}.mlp" for number in range(len(stack(model)))])
    return ModelActivations(model, sites)


def batches(vocab_size: int, number: int, sequences: int, tokens: int) -> Iterator[TokenBatch]:
    """Tokens of which the r-th most frequent has a share that falls with 1 / (r + 2.7)."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(vocab_size) + 3.7)
    for start in range(0, number * sequences, sequences):
        ids = rng.choice(vocab_size, (sequences, tokens), p=share / share.sum())
        yield TokenBatch(ids, np.full(sequences, tokens), np.arange(start, start + sequences))


def timed(device: torch.device, work: Any) -> float:
    """Seconds of some work on an idle device."""
    wait = torch.cuda.synchronize if device.type == "cuda" else time.perf_counter
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def measure(
    source: ModelActivations, recorder: Recorder, given: Any, device: torch.device
) -> list[tuple[float, float]]:
    """Seconds of the bare and of the recording pass over each batch."""
    found = []
    for batch in given:

        def bare(batch: TokenBatch = batch) -> None:
            with torch.inference_mode():
                source.base_model(input_ids=torch.from_numpy(batch.token_ids).to(device), use_cache=False)

        def recording(batch: TokenBatch = batch) -> None:
            recorder.begin(batch)
            source.run(batch, recorder.add)

        before = timed(device, bare)
        found.append((before, timed(device, recording)))
    return found


def ratio(times: list[tuple[float, float]]) -> float:
    """Median of a recording pass over a bare one."""
    return statistics.median(both / bare for bare, both in times)


def run(options: Any) -> dict[str, float]:
    device = torch.device(options.device)
    source, config = open_source(options.size, device), Record(batch_size=options.batch_size)
    width = sum(units.width for units in source.modules.values())
    vocab_size = SIZES[options.size].vocab_size
    covered = min(config.token_memory_mb * 2**20 // (8 * width), vocab_size)
    tokens = TokenTable(np.arange(covered), config.min_token_count)

    def open_recorder() -> Recorder:
        return Recorder(source.modules, config, tokens, options.tokens, backend=options.backend)

    shape = (options.batch_size, options.tokens)
    measure(source, open_recorder(), batches(vocab_size, 2, *shape), device)  # compiles kernels
    recorder = open_recorder()
    times = measure(source, recorder, batches(vocab_size, options.batches, *shape), device)
    last = times[len(times) // 2 :]
    reading = timed(device, lambda: [sum(map(len, pieces)) for pieces in recorder.tables().values()])
    return {
        "total_ratio": ratio(last),
        "total_ratio_run": sum(both for _, both in times) / sum(bare for bare, _ in times),
        "bare_ms": 1000 * statistics.median(bare for bare, _ in times),
        "tokens_per_second": len(last) * options.batch_size * options.tokens / sum(both for _, both in last),
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0,
        "read_seconds": reading,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="gpt2-xl")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", choices=["auto", "torch", "triton"], default="auto")
    parser.add_argument("--batch-size", type=int, default=Record().batch_size, help="sequences of a batch")
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a sequence")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no GPU")
        return
    found = run(options)
    for name, value in found.items():
        print(f"{name:24}{value:14,.4f}")
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
