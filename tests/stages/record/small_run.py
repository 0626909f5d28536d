"""A run on a tiny random Llama and a text of its own words, through the real stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.execution.stage import Stage
from stages import STAGES
from stages.settings import SECTIONS
from tests.pipeline.subjects.conftest import SENTENCES, save_tiny_llama
from tests.pipeline.subjects.saes.layouts import draw, saelens_6

PROBES = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
CODER = draw(1, 16, 16)
MODULES = ("layers.0.mlp", "layers.1.attn", "layers.1.residual", "layers.0.directions:probes")


OTHERS = ("layers.1.sae:coder", "black_box:vowels")


def vowels(texts: list[str]) -> list[int]:
    """The black box."""
    return [sum(text.lower().count(letter) for letter in "aeiou") for text in texts]


def small_config(
    folder: Path,
    record: Mapping[str, Any],
    explain: Mapping[str, Any],
    modules: Sequence[str] = MODULES,
    name: str = "r",
) -> RunConfig:
    """A run file over what `small_subject` has written into the folder."""
    directions = {"probes": {"path": str(folder / "probes.npy")}}
    return parse_config(
        {
            "run": {"name": name, "folder": str(folder)},
            "subject": {
                "model": str(folder / "model"), "modules": list(modules), "directions": directions,
                "saes": {"coder": {"path": str(folder / "coder")}},
                "black_boxes": {"vowels": {"call": "tests.stages.record.small_run:vowels", "window": 2}},
            },
            "corpus": {"source": str(folder / "text.jsonl"), "seq_len": 12, "min_tokens": 6},
            "record": {
                "batch_size": 4, "min_token_count": 1, "top": {"explain": 4, "select": 1, "report": 1},
                "random": {"explain": 1, "select": 1, "report": 1}, **record,
            },
            "explain": {"units": 2, **explain},
        },
        "test.toml", SECTIONS)  # fmt: skip


def small_subject(folder: Path) -> None:
    """A model far from linear, a text, some directions, and a sparse autoencoder."""
    save_tiny_llama(folder / "model", initializer_range=0.4)
    words = " ".join(SENTENCES).split()
    rng = np.random.default_rng(0)
    lines = ['{"text": "' + " ".join(rng.choice(words, 30)) + '"}' for _ in range(8)]
    (folder / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    np.save(folder / "probes.npy", PROBES)
    tensors = {"W_enc": CODER.w_enc, "b_enc": CODER.b_enc, "W_dec": CODER.w_dec, "b_dec": CODER.b_dec}
    saelens_6(folder / "coder", "standard", tensors, d_in=16, hook_name="blocks.1.hook_resid_post")


def run_stages(config: RunConfig, names: Sequence[str], stages: Mapping[str, Stage] = STAGES) -> None:
    """Run some stages, each to its end."""
    for name in names:
        progress = run_stage(stages[name], config, stages, show=False)
        assert progress.finished, [note.read_text() for note in (config.root / "_failed").glob("*")]
