"""Delphi's side, run by the Python of its own environment: caches activations, saves them, and makes the records of all units.

Run: python -m tests.benchmarks.peer.delphi_side TASK.json, see `Task` in tests/benchmarks/peer/task.py.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from delphi.config import CacheConfig, ConstructorConfig, SamplerConfig  # type: ignore[import-not-found]
from delphi.latents import LatentCache, LatentDataset  # type: ignore[import-not-found]
from delphi.sparse_coders.load_sparsify import load_sparsify_hooks  # type: ignore[import-not-found]
from transformers import AutoModel, AutoTokenizer

from tests.benchmarks.peer.clock import Cost, bare_forward, measured


def encoders(model: Any, task: Mapping[str, Any]) -> tuple[dict[str, Callable[..., Any]], bool]:
    """Delphi's functions from what it hooks to activations (B, T, U), and whether it hooks inputs."""
    if task["sparse_coder"]:
        hooks, transcode = load_sparsify_hooks(model, task["sparse_coder"], task["delphi_hooks"])
        return hooks, transcode
    return dict.fromkeys(task["delphi_hooks"], _as_it_is), True


def _as_it_is(activations: torch.Tensor) -> torch.Tensor:
    return activations


def make_records(model: Any, tokenizer: Any, tokens: torch.Tensor, folder: Path, task: Mapping[str, Any]) -> int:
    """All that Delphi does before it asks a language model; returns the number of records."""
    config = CacheConfig(batch_size=task["batch_size"], cache_ctx_len=tokens.shape[1], n_tokens=tokens.numel())
    hooks, transcode = encoders(model, task)
    cache = LatentCache(model, hooks, config.batch_size, transcode=transcode)
    cache.run(config.n_tokens, tokens)
    cache.save_splits(config.n_splits, folder)
    cache.save_config(folder, config, task["model"])
    del cache
    constructor = ConstructorConfig(min_examples=1)
    records = LatentDataset(folder, SamplerConfig(), constructor, tokenizer, modules=list(hooks))
    return sum(1 for _ in records)


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    model: Any = AutoModel.from_pretrained(task["model"], dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    tokens = torch.from_numpy(np.load(task["tokens"]))
    folder = Path(task["delphi_folder"])
    make_records(model, tokenizer, tokens[: task["batch_size"]], folder.with_name(folder.name + "-warm"), task)
    cost = Cost()
    bare_forward(model, torch.split(tokens, task["batch_size"]), cost)
    with measured(type(model), cost):
        cost.records = make_records(model, tokenizer, tokens, folder, task)
    cost.print()


if __name__ == "__main__":
    main()
