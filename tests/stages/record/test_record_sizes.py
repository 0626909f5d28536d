"""What recording was estimated to take is what it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.config.run_file import load_config, parse_config
from pipeline.schemas import EXEMPLARS, UNITS
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.activations import ModuleUnits, SparseActivations, TokenBatch
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.corpus import build_corpus
from stages.record.merge import merge
from stages.record.partial_tables import PARTIALS
from stages.record.partials import Partials
from stages.record.record_sizes import FIRING, RecordSizes, distinct_tokens, record_sizes, recorder_bytes, sizes_of
from stages.record.recorded_batch import TokenTable, count_tokens, cover_tokens
from stages.record.scan import Recorder
from stages.record.sequences import padded_batches, special_ids
from stages.settings import SECTIONS, Record
from stages.token_means import TOKEN_MEANS
from tests.pipeline.subjects.conftest import save_tiny_llama
from tests.pipeline.subjects.saes.layouts import draw, saelens_6

MODULES = {"layers.0.mlp": ModuleUnits(200), "layers.1.mlp": ModuleUnits(300, signed=False)}
VOCABULARY, LENGTH, SEQUENCES, PART = 2000, 24, 320, 160


def run_file(folder: Path, subject: dict[str, Any] | None = None, **record: Any) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "r", "folder": str(folder)},
            "subject": subject or {"model": "unused", "modules": list(MODULES)},
            "corpus": {"source": "unused.txt", "seq_len": LENGTH, "max_sequences": SEQUENCES},
            "record": {"shard_sequences": PART, "batch_size": 32, "min_token_count": 1, **record},
        },
        "run.toml",
        SECTIONS,
    )


def scanned(
    config: RunConfig, tokens: TokenTable, start: int, count: int = PART, modules: dict[str, ModuleUnits] = MODULES
) -> Recorder:
    """A recorder that has seen a part of a corpus."""
    rng = np.random.default_rng(start)
    recorder = Recorder(modules, config[Record], tokens, LENGTH)
    sequences = [(start + n, rng.integers(0, VOCABULARY, LENGTH).tolist()) for n in range(count)]
    for batch in padded_batches(sequences, config[Record].batch_size):
        recorder.begin(batch)
        for name, units in modules.items():
            drawn = torch.from_numpy(rng.standard_normal((32, LENGTH, units.width), np.float32))
            recorder.add(name, firing(drawn, rng) if units.sparse else drawn)
    return recorder


def firing(drawn: torch.Tensor, rng: np.random.Generator) -> SparseActivations:
    """A share FIRING of some activations, as positive numbers."""
    flat = drawn.abs().flatten(0, 1) * torch.from_numpy(
        rng.random((drawn.shape[0] * drawn.shape[1], drawn.shape[2])) < FIRING
    )
    positions, units = flat.nonzero(as_tuple=True)
    return SparseActivations((*drawn.shape,), positions, units, flat[positions, units])


def held(thing: Any, seen: set[int] | None = None) -> int:
    """Bytes of all arrays that something holds, each once."""
    seen = set() if seen is None else seen
    if isinstance(thing, Record) or id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return int(thing.nbytes)
    if isinstance(thing, dict):
        return sum(held(part, seen) for part in thing.values())
    if isinstance(thing, list | tuple):
        return sum(held(part, seen) for part in thing)
    return held(vars(thing), seen) if hasattr(thing, "__dict__") else 0


@pytest.mark.parametrize("tokens", [0, 400])
def test_memory_is_right_within_a_fifth(tmp_path: Path, tokens: int) -> None:
    config = run_file(tmp_path)
    recorder = scanned(config, TokenTable(np.arange(tokens), 1), 0)
    expected = recorder_bytes(MODULES, config[Record], tokens, LENGTH, SEQUENCES)
    assert held(recorder.accumulators) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("signed", [False, True])
def test_memory_of_sparse_modules_is_right_within_a_fifth(tmp_path: Path, signed: bool) -> None:
    config = run_file(tmp_path)
    modules = {"layers.0.sae:x": ModuleUnits(500, signed=signed, sparse=True)}
    recorder = scanned(config, TokenTable(np.arange(400), 1), 0, SEQUENCES, modules)
    expected = recorder_bytes(modules, config[Record], 400, LENGTH, SEQUENCES)
    assert held(recorder.accumulators) == pytest.approx(expected, rel=0.2)


@pytest.mark.slow
def test_memory_of_the_demo_is_right_within_a_fifth_before_its_corpus_is_there() -> None:
    demo = load_config("pipeline/presets/demo.toml", SECTIONS)
    config = demo.model_copy(update={"subject": demo.subject.model_copy(update={"modules": ["layers.4.mlp"]})})
    corpus = build_corpus(config.corpus, 0, load_tokenizer(config.subject.model, False), show=False)
    modules = describe_modules(config)
    sequences = zip(corpus["seq_id"].to_pylist(), corpus["token_ids"].to_pylist(), strict=True)
    counts = count_tokens(padded_batches(sequences, 32), config[Record], special_ids(config))
    tokens = cover_tokens(*counts, 1536, config[Record])
    assert len(tokens.token_ids) > 1000
    recorder = Recorder(modules, config[Record], tokens, config.corpus.seq_len)
    ids = np.asarray([row for row in corpus["token_ids"].to_pylist()[:40] if len(row) == 64][:32])
    for start in range(0, 160, 32):
        recorder.begin(TokenBatch(ids, np.full(32, 64), np.arange(start, start + 32)))
        recorder.add("layers.4.mlp", torch.randn(32, 64, 1536))
    assert held(recorder.accumulators) == pytest.approx(record_sizes(config).memory, rel=0.2)


@pytest.mark.parametrize("bits", [11, pytest.param(24, marks=pytest.mark.slow)])
def test_disk_is_right_within_a_quarter(tmp_path: Path, bits: int) -> None:
    config = run_file(tmp_path, activation_bits=bits)
    tokens = TokenTable(np.arange(VOCABULARY), 1)
    tables = Tables(tmp_path)
    for part in range(SEQUENCES // PART):
        pieces = scanned(config, tokens, part * PART).tables()
        for table in PARTIALS:
            name = f"part-{part:05d}"
            publish(tables.file(table, name), pieces[table.name], table, {})
    partials = Partials(tables)
    texts = {token_id: f" {token_id}" for token_id in range(VOCABULARY)}
    for module, units in MODULES.items():
        rows = merge(partials.about(module, 0, units.width), module, 0, units.width, config[Record], texts)
        for table in (EXEMPLARS, UNITS, TOKEN_MEANS):
            publish(tables.file(table, module), rows[table.name], table, {})

    def disk(*wanted: Any) -> int:
        return sum(path.stat().st_size for table in wanted for path in tables.files(table))

    expected = sizes_of(MODULES, config, VOCABULARY)
    assert disk(*PARTIALS) == pytest.approx(expected.partials, rel=0.25)
    assert disk(EXEMPLARS, UNITS, TOKEN_MEANS) == pytest.approx(expected.tables, rel=0.25)


def test_two_polarities_take_more_than_one_and_sparse_modules_less() -> None:
    def size(**units: Any) -> int:
        return recorder_bytes({"m": ModuleUnits(100, **units)}, Record(), 0, 64, 1000)

    assert size(sparse=True, signed=False) < size(signed=False) < size(signed=True)


def test_the_largest_module_is_that_which_takes_most_and_not_the_widest(tmp_path: Path) -> None:
    weights = draw(inputs=16, outputs=16)
    wide = {
        "W_enc": np.tile(weights.w_enc, 2),
        "b_enc": np.tile(weights.b_enc, 2),
        "W_dec": np.tile(weights.w_dec, (2, 1)),
    }
    coder = saelens_6(tmp_path / "x", "standard", wide | {"b_dec": weights.b_dec}, d_in=16, d_sae=48, metadata={})
    model = save_tiny_llama(tmp_path / "model")

    def sizes(*modules: str) -> RecordSizes:
        subject = {"model": str(model), "modules": [*modules], "saes": {"x": {"path": str(coder)}}}
        return record_sizes(run_file(tmp_path, subject, pool=SEQUENCES))

    together, dense, sparse = sizes("layers.1.sae:x", "layers.0.mlp"), sizes("layers.0.mlp"), sizes("layers.1.sae:x")
    assert sparse.units == 48 > dense.units == 24
    assert dense.memory > together.module == dense.module > sparse.memory == sparse.module
    assert together.memory == dense.memory + sparse.memory


def test_longer_texts_have_more_different_tokens_and_no_more_than_there_are() -> None:
    counts = [distinct_tokens(tokens, 50_000) for tokens in (10, 1000, 30_000, 10**6)]
    assert counts == sorted(counts)
    assert counts[0] <= 10
    assert 6000 < counts[2] < 9000
    assert distinct_tokens(10**12, 50_000) == 50_000
