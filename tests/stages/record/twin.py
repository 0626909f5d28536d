"""Made-up corpora, and the rows that the record stage gives for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.subjects.activations import ModuleUnits, TokenBatch
from stages.record import scan
from stages.record.backends.contract import Accumulator
from stages.record.merge import merge
from stages.record.partial_tables import BLOCK, BY_BLOCK, PARTIALS
from stages.record.recorded_batch import TokenTable, count_tokens, cover_tokens, make_batch
from stages.record.scan import Recorder
from stages.record.sequences import padded_batches
from stages.settings import PerSplit, Record
from tests.stages.record.ways import Way, backend_of, device_of

SEQ_LEN = 12
SMALL = Record(
    top=PerSplit(explain=3, select=2, report=1),
    random=PerSplit(explain=2, select=1, report=1),
    per_band=PerSplit(explain=2, select=1, report=0),
    pool=24,
    top_tokens=4,
    min_token_count=2,
    activation_bits=24,
    batch_size=4,
    shard_sequences=4,
)
TEXTS = {token: f" w{token}" for token in range(50)}

Activations = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """Sequences of T tokens at most, and the (T, U) activations of each module on each."""

    token_ids: list[list[int]]
    activations: dict[str, list[Activations]]
    special_ids: frozenset[int] = frozenset()

    @property
    def widths(self) -> dict[str, int]:
        return {name: values[0].shape[1] for name, values in self.activations.items()}


def make_corpus(
    kind: str, sequences: int = 61, widths: tuple[int, ...] = (3, 7), seed: int = 0, seq_len: int = SEQ_LEN
) -> Corpus:
    """A random corpus; `tied` and `rare` activations take few values, of `rare` ones the high seldom; `dead` are zero."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([seq_len, seq_len, seq_len - 3, 3], sequences)
    token_ids = [rng.integers(0, 15, length).tolist() for length in lengths]

    def draw(shape: tuple[int, int]) -> Activations:
        if kind == "tied":
            return rng.integers(-1, 3, shape).astype(np.float32)
        if kind == "rare":
            return np.floor(rng.exponential(0.6, shape)).astype(np.float32)
        if kind == "dead":
            return np.zeros(shape, np.float32)
        return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))).astype(np.float32)

    activations = {f"layers.{n}.mlp": [draw((length, width)) for length in lengths] for n, width in enumerate(widths)}
    return Corpus(token_ids, activations)


def token_table(corpus: Corpus, config: Record) -> TokenTable:
    batches = padded_batches(enumerate(corpus.token_ids), 32)
    return cover_tokens(*count_tokens(batches, config, corpus.special_ids), sum(corpus.widths.values()), config)


def batches(corpus: Corpus, start: int, stop: int, config: Record) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
    """Batches of the sequences start..stop with the activations; the padding holds some that nothing may look at."""
    sequences = [(seq_id, corpus.token_ids[seq_id]) for seq_id in range(start, min(stop, len(corpus.token_ids)))]
    for batch in padded_batches(sequences, config.batch_size):
        found = {}
        for name, values in corpus.activations.items():
            padded = np.full((*batch.token_ids.shape, corpus.widths[name]), 1e9, np.float32)
            padded[:, ::2] = np.nan
            for row, seq_id in enumerate(batch.seq_ids):
                padded[row, : batch.lengths[row]] = values[seq_id]
            found[name] = torch.from_numpy(padded)
        yield batch, found


def scan_arrays(corpus: Corpus, start: int, stop: int, config: Record, backend: Way = "numba") -> dict[str, pa.Table]:
    """Partials of the sequences start..stop."""
    modules = {name: ModuleUnits(width) for name, width in corpus.widths.items()}
    seq_len = max(len(ids) for ids in corpus.token_ids)
    table = token_table(corpus, config)
    recorder = Recorder(modules, config, table, seq_len, corpus.special_ids, backend_of(backend))
    for batch, activations in batches(corpus, start, stop, config):
        recorder.begin(batch)
        for name, values in activations.items():
            recorder.add(name, values.to(device_of(backend)))
    return whole_tables(recorder)


def whole_tables(recorder: Recorder) -> dict[str, pa.Table]:
    """The partial tables by name, each in one piece."""
    found = recorder.tables()
    return {table.name: pa.concat_tables([table.schema.empty_table(), *found[table.name]]) for table in PARTIALS}


def accumulate(
    corpus: Corpus, module: str, part: range, config: Record, backend: Way = "numba", signed: bool = True
) -> Accumulator:
    """The state of one module after some sequences."""
    tokens = token_table(corpus, config)
    shape = (corpus.widths[module], max(len(ids) for ids in corpus.token_ids), len(tokens.token_ids), config, signed)
    found = open_sums(shape, backend)
    for batch, activations in batches(corpus, part.start, part.stop, config):
        prepared = make_batch(batch, config, tokens, corpus.special_ids)
        found.add(activations[module].to(device_of(backend)), prepared)
    return found


def open_sums(shape: tuple[Any, ...], backend: Way) -> Accumulator:
    """The empty state of a module."""
    return scan.open_sums(backend_of(backend), device_of(backend), *shape)


def rows_about(partial: dict[str, pa.Table], module: str, start: int, stop: int) -> dict[str, pa.Table]:
    """What of a partial a merge of some units is given."""
    found = {}
    for name, table in partial.items():
        first = start - start % BLOCK if name in BY_BLOCK else start
        index = table["index"].to_numpy()
        chosen = (np.asarray(table["module"].to_pylist(), object) == module) & (index >= first) & (index < stop)
        found[name] = table.filter(pa.array(chosen))
    return found


def record(
    corpus: Corpus,
    config: Record = SMALL,
    shard: int = 10_000,
    backend: Way = "numba",
    order: int = 1,
    units: int = 512,
) -> dict[str, list[dict[str, Any]]]:
    """Scan in shards of some sequences and merge ranges of some units; rows by table."""
    starts = range(0, len(corpus.token_ids), shard)
    partials = [scan_arrays(corpus, start, start + shard, config, backend) for start in starts][::order]
    rows: dict[str, list[dict[str, Any]]] = {"units": [], "token_means": [], "exemplars": []}
    for module, width in corpus.widths.items():
        for start in range(0, width, units):
            stop = min(start + units, width)
            about = [rows_about(partial, module, start, stop) for partial in partials]
            for name, table in merge(about, module, start, stop, config, TEXTS).items():
                rows[name] += table.to_pylist()
    return rows
