"""A small run of SASC: a tiny model and a ready-made black box on sentences of a few words."""

import random
from pathlib import Path

from tests.pipeline.subjects.conftest import save_tiny_llama

RUN_FILE = """
[run]
name = "sasc"
folder = "{folder}"
methods = ["sasc"]

[subject]
model = "{model}"
modules = ["black_box:near", "layers.1.mlp"]
[subject.black_boxes.near]
call = "pipeline.black_boxes.concept:concept"
arguments = {{ concepts = ["an animal", "a number"] }}
units = 2

[corpus]
source = "{texts}"
seq_len = 40
min_tokens = 4

[sasc]
max_ngrams = {ngrams}
shard_ngrams = {shard}
units = {{ "black_box:near" = [0, 1], "layers.1.mlp" = [3] }}
candidates = 2
texts = 8
nulls = {nulls}
bootstrap = 100
shard_units = {units}
{more}
"""


def write_run_file(
    folder: Path, ngrams: int = 120, shard: int = 120, units: int = 8, nulls: int = 20, more: str = ""
) -> Path:
    """A run file in a new folder, whose run is made there as well.

    Args:
        ngrams, shard: n-grams in all, and of a shard.
        units: of a shard.
        more: further lines of the section sasc, and sections behind it.
    """
    folder.mkdir()
    words = ["red", "fox", "sea", "old", "ran", "home", "1984", "dog", "seven", "horse"]
    moments = random.Random(3)
    texts = [f"{' '.join(moments.sample(words, 6)).capitalize()}." for _ in range(60)]
    (folder / "texts.txt").write_text("\n\n".join(texts))
    model = save_tiny_llama(folder / "model")
    values = {"folder": folder, "model": model, "texts": folder / "texts.txt", "ngrams": ngrams}
    file = folder / "sasc.toml"
    file.write_text(RUN_FILE.format(**values, shard=shard, units=units, nulls=nulls, more=more))
    return file
