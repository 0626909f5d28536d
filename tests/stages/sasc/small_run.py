"""A small run of SASC: a tiny model with units of every kind, functions good and bad, and a corpus of few words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.llm.engine import Engine
from stages import STAGES
from stages.asking import Asker
from stages.sasc.by_language_model import SYNTHESIZER, LanguageModelSynthesizer
from stages.sasc.ngram_pieces import word_spans
from stages.settings import SECTIONS, Record
from tests.pipeline.subjects.conftest import save_tiny_llama

WORDS = [
    "the",
    "red",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "in",
    "1984",
    "café",
    "and",
    "costs",
    "brown",
    "quick",
]
UNITS = [
    "layers.0.mlp", "layers.1.attn", "layers.0.residual", "layers.1.attn_out", "layers.1.mlp_out",
    "layers.1.sae:small", "layers.0.directions:axes",
]  # fmt: skip
FUNCTIONS = '''
import time
import numpy as np

def counts(texts):
    """How many letters a text has, how many of them are e, and nothing at all."""
    return np.array([[len(text), text.count("e"), 2.5] for text in texts])

def raises(texts):
    if any("fox jumps" in text for text in texts):
        raise LookupError("no foxes")
    return [1.0 for text in texts]

def nan(texts):
    return [float("nan") if "fox" in text else len(text) for text in texts]

def short(texts):
    return [1.0] * min(9, len(texts))

def random(texts):
    return np.random.default_rng().random(len(texts))

def beside(texts):
    """The place of a text in its batch, if the batch is large."""
    return [place if len(texts) > 20 else 0 for place, text in enumerate(texts)]

def slow(texts):
    while any("fox jumps" in text for text in texts):
        time.sleep(0.05)
    return [len(text) for text in texts]
'''
GOOD = "black_box:counts"
BAD = [f"black_box:{name}" for name in ("raises", "nan", "short", "random", "beside", "slow")]


def write_place(folder: Path) -> Path:
    """A folder with model, coder, directions, functions and texts."""
    save_tiny_llama(folder / "model")
    rng = np.random.default_rng(5)
    (folder / "coder").mkdir()
    torch.manual_seed(3)
    weights = {"encoder.weight": torch.randn(20, 16), "encoder.bias": torch.zeros(20), "W_dec": torch.randn(20, 16)}
    save_file(weights | {"b_dec": torch.zeros(16)}, folder / "coder" / "sae.safetensors")
    config = {"activation": "topk", "k": 4, "num_latents": 20, "expansion_factor": 1, "d_in": 16}
    (folder / "coder" / "cfg.json").write_text(json.dumps(config | {"transcode": False, "skip_connection": False}))
    np.save(folder / "axes.npy", rng.normal(size=(3, 16)))
    (folder / "sasc_functions.py").write_text(FUNCTIONS)
    (folder / "texts").mkdir()
    for number in range(6):
        drawn = " ".join(str(rng.choice(WORDS)) for _ in range(45))
        (folder / "texts" / f"{number}.txt").write_text(f"{drawn.capitalize()}. The  red\nfox jumps!")
    return folder


BOTH = ("simulation", "sasc")


def writer(engine: Engine) -> LanguageModelSynthesizer:
    """A language model that writes texts for and against explanations."""
    return LanguageModelSynthesizer(Asker(engine), SYNTHESIZER.load_prompts(""))


def run_file(
    place: Path, name: str, modules: list[str], record: Any = None, methods: Any = ("sasc",), **sasc: Any
) -> RunConfig:
    """A run in `place`, which is the working directory."""
    boxes: dict[str, dict[str, Any]] = {
        module.partition(":")[2]: {
            "call": f"sasc_functions:{module.partition(':')[2]}",
            "units": 3 if module == GOOD else 1,
            "timeout": 1 if module == "black_box:slow" else 600,
            "batch_size": 32,
        }
        for module in [GOOD, *BAD]
    }
    boxes["near"] = {
        "call": "pipeline.black_boxes.concept:concept",
        "arguments": {"concepts": ["an animal", "a number"]},
        "units": 2,
    }
    sections: dict[str, Any] = {
        "run": {"name": name, "folder": str(place), "methods": list(methods)},
        "subject": {
            "model": str(place / "model"),
            "modules": modules,
            "black_boxes": boxes,
            "saes": {"small": {"path": str(place / "coder")}},
            "directions": {"axes": {"path": str(place / "axes.npy")}},
        },
        "corpus": {"source": str(place / "texts"), "seq_len": 32, "min_tokens": 4},
        "record": {"batch_size": 4, "shard_sequences": 8} | (record or {}),
        "sasc": {"max_ngrams": 200, "kept": 10, "top": 8, "shown": 5, "polarities": ["+", "-"], "nulls": 0} | sasc,
    }
    return parse_config(sections, "test.toml", SECTIONS)


def run_ngrams(config: RunConfig) -> Path:
    """Run the stages as far as the n-grams; returns the run's folder."""
    recording = ("record.scan", "record.merge") if "simulation" in config.run.methods else ()
    for name in ("corpus", *recording, "ngrams.list", "ngrams.scan", "ngrams.merge"):
        STAGES[name].check(config)
        assert run_stage(STAGES[name], config, STAGES, show=False).finished, name
    return config.root


def occurrences(config: RunConfig, row: Mapping[Any, Any], text: str) -> list[list[int]]:
    """The tokens of each occurrence of an n-gram of words in a row of `corpus` that counts."""
    wanted = [text[start:stop].lower() for start, stop in word_spans(text)]
    tokens = list(row["tokens"])
    whole = "".join(tokens)
    spans = word_spans(whole)
    found = []
    for first in range(len(spans) - len(wanted) + 1):
        part = spans[first : first + len(wanted)]
        low, high = part[0][0], part[-1][1]
        inside, place = [], 0
        for number, token in enumerate(tokens):
            if place < high and place + len(token) > low:
                inside.append(number)
            place += len(token)
        broken = (low == 0 and row["start"] > 0) or (high == len(whole) and len(tokens) == config.corpus.seq_len)
        if (
            [whole[a:b].lower() for a, b in part] == wanted
            and not broken
            and inside[0] >= config[Record].skip_positions
        ):
            found.append(inside)
    return found


def table(root: Path, name: str) -> pd.DataFrame:
    """A table of a run."""
    return pd.read_parquet(root / name)
