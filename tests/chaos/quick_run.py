"""A run that takes a second or two and goes through every stage: a tiny model, short texts, and a made-up language model on loopback."""

import random
import re
import shutil
from pathlib import Path

from tests.integration.endpoint_run import KEY_VARIABLE
from tests.pipeline.subjects.conftest import save_tiny_llama

NAME = "quick"
CONCURRENCY = 4
"""Requests of a worker in flight at most."""
RUN_FILE = """
[run]
name = "quick"
folder = "{folder}"
methods = ["simulation", "sasc"]

[subject]
model = "{material}/model"
modules = ["layers.0.mlp", "layers.1.mlp"]

[corpus]
source = "{material}/texts.txt"
seq_len = 16
min_tokens = 6
max_sequences = 64

[record]
top = {{ explain = 4, select = 2, report = 2 }}
random = {{ explain = 2, select = 2, report = 2 }}
per_band = {{ explain = 1, select = 0, report = 0 }}
pool = 16
min_token_count = 2
batch_size = 16
shard_sequences = 16
shard_units = 12

[explain]
explainer = "max_activation"
units = {units}
candidates = 2
shard_units = 2
engine = {engine}

[simulate]
simulator = "json"
controls = 1
shard_units = 2
engine = {engine}

[score]
bootstrap = 100
shard_units = 2

[judge]
methods = ["detection"]
controls = 1
examples = 4
shard_units = 2
engine = {engine}

[sasc]
max_ngrams = 60
shard_ngrams = 20
units = {{ "layers.1.mlp" = [3, 7] }}
explainer = "language_model"
synthesizer = "language_model"
explain_engine = {engine}
synthesize_engine = {engine}
candidates = 2
texts = 4
nulls = 0
bootstrap = 100
shard_units = 1

[launch]
lease = {lease}
workers = 3
cores = 1
"""
ENGINE = '{{ base_url = "{base_url}", key_variable = "{key}", model = "loopback", concurrency = {concurrency}{more} }}'


def make_material(folder: Path) -> Path:
    """The model and the texts that all quick runs share."""
    folder.mkdir()
    words = ["red", "fox", "sea", "old", "ran", "home", "1984", "dog", "seven", "horse"]
    drawn = random.Random(3)
    texts = [f"{' '.join(drawn.sample(words, 6)).capitalize()}." for _ in range(60)]
    (folder / "texts.txt").write_text("\n\n".join(texts), encoding="utf-8")
    save_tiny_llama(folder / "model")
    return folder


def write_run(
    folder: Path, material: Path, base_url: str, *, units: int = 4, lease: float = 3.0, more: str = "retries = 4"
) -> Path:
    """A run file in a folder of its own; its run is made beside it, in the folder `quick`.

    Args:
        units: explained of each module.
        lease: seconds without a sign of life after which a worker counts as dead.
        more: further settings of the language model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = ENGINE.format(
        base_url=base_url, key=KEY_VARIABLE, concurrency=CONCURRENCY, more=f", {more}" if more else ""
    )
    file = folder / "run.toml"
    text = RUN_FILE.format(folder=folder, material=material, engine=engine, units=units, lease=lease)
    file.write_text(text, encoding="utf-8")
    return file


def copied_run(finished: Path, folder: Path, base_url: str) -> Path:
    """The run file of a copy of a run, in a new folder.

    Args:
        base_url: of the server that the copy is to ask, if it has to.
    """
    shutil.copytree(finished.parent, folder)
    file = folder / finished.name
    text = file.read_text(encoding="utf-8").replace(f'folder = "{finished.parent}"', f'folder = "{folder}"')
    file.write_text(re.sub('(?<=base_url = ")[^"]*', base_url, text), encoding="utf-8")
    return file
