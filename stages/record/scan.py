"""The record.scan stage: from a range of the corpus to partial evidence for all units of all modules.

Batches lie on a fixed grid of seq_ids, batch b being the sequences with those from b * batch_size on, and shards are made of
whole batches. So the activations are the same, to the last bit, however the corpus is split.

Sequences are not sorted by length. A sequence that is padded to another length has other last bits, because matrix products add
up in another order; and batches of equal length would differ from shard to shard. There is little to gain: only windows at the end
of a document are shorter, 1 % of those of the demo, and 0.5 % of what a pass computes is padding.
"""

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ActivationSource, ModuleUnits, TokenBatch
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.record.backends.contract import Accumulator
from stages.record.null_run import given_to_others
from stages.record.partial_tables import (
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNIFORM,
    PARTIAL_UNITS,
    PARTIALS,
    exemplar_rows,
    token_rows,
    uniform_rows,
    unit_rows,
)
from stages.record.recorded_batch import Batch, TokenTable, count_tokens, cover_tokens, make_batch
from stages.record.sequences import (
    Sequences,
    corpus_ids,
    padded_batches,
    sequence_shards,
    sequences_between,
    special_ids,
)
from stages.settings import Record
from stages.units import draw

LATER = {
    *("quantiles", "activation_bits", "weight_tokens", "negatives", "attribution", "details", "pairs"),
    *("top_tokens", "min_token_count", "shard_sequences", "shard_units"),
}
"""Settings that do not change what is scanned."""
COUNTED = 1024
"""Sequences whose tokens are counted at a time."""
Backend = Literal["auto", "numba", "torch", "triton"]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    return {
        **(model_identity(config.subject) if needs_model(modules_of(config)) else {}),
        "modules": modules_of(config),
        "sources": source_identities(config),
        "record": config[Record].model_dump(exclude=LATER),
        **({"null": config.run.null, "seed": config.run.seed} if config.run.null != "none" else {}),
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_sequences seq_ids."""
    return sequence_shards(corpus_ids(tables), config[Record].shard_sequences)


def process(shard: Shard, context: Context) -> Mapping[str, Iterator[pa.Table]]:
    """Scan one range of the corpus."""
    from pipeline.subjects.activation_sources import open_source

    config, record = context.config, context.config[Record]
    source = context.once("source", lambda config: open_source(config, modules_of(config)))
    special = context.once("special_ids", special_ids)
    width = sum(units.width for units in source.modules.values())
    tokens = context.once("token_table", lambda _: token_table(context.tables, width, config, special))
    null_seed = None if config.run.null == "none" else config.run.seed
    recorder = Recorder(source.modules, record, tokens, config.corpus.seq_len, special, null_seed=null_seed)
    start, stop = shard.key["start"], shard.key["stop"]
    scan(source, recorder, sequences_between(context.tables, start, stop), record.batch_size, stop - start)
    return recorder.tables()


def token_table(tables: Tables, units: int, config: RunConfig, special: Collection[int] = ()) -> TokenTable:
    """The tokens whose mean activation is recorded, from a count over the whole corpus."""
    batches = padded_batches(sequences_between(tables, 0, int(corpus_ids(tables)[-1]) + 1), COUNTED)
    return cover_tokens(*count_tokens(batches, config[Record], special), units, config[Record])


def scan(
    source: ActivationSource, recorder: "Recorder", sequences: Sequences, batch_size: int, total: int | None = None
) -> None:
    """Run over some sequences, a batch at a time, and record what the units do.

    Args:
        sequences: by rising seq_id, from a multiple of batch_size on.
        total: how many there are, for the progress bar.
    """
    with tqdm(total=total, desc="sequences", unit="sequence", leave=False, disable=None) as bar:
        for batch in padded_batches(sequences, batch_size):
            recorder.begin(batch)
            source.run(batch, recorder.add)
            bar.update(len(batch.seq_ids))


class Recorder:
    """The partial evidence of all units of some modules, over any part of the corpus: activations in, partial tables out.

    Call `begin` for a batch, then `add` for each module, and in the end `tables`. Memory is bounded (see `record_sizes`).

    Args:
        modules: the units of each module.
        config: what is kept.
        tokens: the tokens whose mean activation is wanted.
        seq_len: tokens of the longest sequence.
        special_ids: the tokenizer's special tokens, left out of everything where `record.skip_special` is on.
        backend: "auto" chooses for each module by where its activations are.
        null_seed: in a null run, the seed by which each unit's activations are given to other sequences.
    """

    def __init__(
        self,
        modules: Mapping[str, ModuleUnits],
        config: Record,
        tokens: TokenTable,
        seq_len: int,
        special_ids: Collection[int] = frozenset(),
        backend: Backend = "auto",
        null_seed: int | None = None,
    ) -> None:
        self.modules, self.config, self.tokens, self.seq_len = modules, config, tokens, seq_len
        self.special_ids, self.backend, self.null_seed = special_ids, backend, null_seed
        self.accumulators: dict[str, Accumulator] = {}
        self._lengths: dict[int, int] = {}
        self._occurrences = np.zeros(len(tokens.token_ids), np.int64)
        self._batch: Batch | None = None

    def begin(self, batch: TokenBatch) -> None:
        """Announce the batch whose activations follow; none of its sequences was added before."""
        self._batch = make_batch(batch, self.config, self.tokens, self.special_ids)
        self._lengths.update(zip(batch.seq_ids.tolist(), batch.lengths.tolist(), strict=True))
        self._occurrences[self._batch.token_rows] += np.diff(self._batch.starts)

    def add(self, module: str, activations: Any) -> None:
        """Add a module's activations on the current batch: a (B, T, U) torch tensor, or SparseActivations."""
        assert self._batch is not None, "begin() announces a batch first"
        if module not in self.accumulators:
            units, tokens = self.modules[module], len(self.tokens.token_ids)
            shape = (units.width, self.seq_len, tokens, self.config, units.signed)
            device = None if units.sparse else activations.device
            self.accumulators[module] = open_sums(self.backend, device, *shape, sparse=units.sparse)
        if self.null_seed is not None:
            rng = draw(self.null_seed, f"null/{module}/{self._batch.seq_ids[0]}")
            activations = given_to_others(activations, self._batch, rng)
        self.accumulators[module].add(activations, self._batch)

    def tables(self) -> dict[str, Iterator[pa.Table]]:
        """The rows of each partial table by its name, sorted by module (as given) and index.

        They are made while they are iterated over, some units at a time, so that memory holds only those.
        """
        states = [(module, self.accumulators[module]) for module in self.modules if module in self.accumulators]
        tokens, occurrences, lengths = self.tokens, self._occurrences, self._lengths
        made = {
            PARTIAL_UNITS.name: ([unit_rows(module, state.sums(), tokens.min_count)] for module, state in states),
            PARTIAL_TOKENS.name: (token_rows(module, state.sums(), tokens, occurrences) for module, state in states),
            PARTIAL_UNIFORM.name: (
                uniform_rows(module, state.uniform(), self.modules[module].width) for module, state in states
            ),
            PARTIAL_EXEMPLARS.name: (exemplar_rows(module, state.sums(), lengths) for module, state in states),
        }
        return {name: chain.from_iterable(pieces) for name, pieces in made.items()}


def open_sums(backend: Backend, device: Any, *shape: Any, sparse: bool = False) -> Accumulator:
    """The empty state of a module.

    Args:
        device: the torch device of its activations.
        shape: units, tokens of the longest sequence, tokens of the token table, the settings, and whether units are signed.
        sparse: whether activations come as SparseActivations.
    """
    if sparse:
        from stages.record.backends.numba.sparse_sums import SparseSums

        return SparseSums(*shape)
    chosen = backend_for(device) if backend == "auto" else backend
    if chosen == "numba":
        from stages.record.backends.numba.numba_sums import NumbaSums

        return NumbaSums(*shape)
    if chosen == "torch":
        from stages.record.backends.torch_sums import TorchSums

        return TorchSums(device, *shape)
    from stages.record.backends.triton_sums import TritonSums

    return TritonSums(device, *shape)


def backend_for(device: Any) -> Backend:
    """The fastest backend for activations on a torch device that gives the right results there."""
    if device.type == "cpu":
        return "numba"
    if device.type == "cuda" and find_spec("triton"):
        from stages.record.backends.triton_check import triton_agrees

        return "triton" if triton_agrees(device) else "torch"
    return "torch"


def check(config: RunConfig) -> None:
    """Raises UserError if the subject or its device is missing, or a module does not exist or fails."""
    from pipeline.subjects.activation_sources import check_sources
    from pipeline.subjects.loading.model_loading import resolve_device

    if needs_model(modules_of(config)):
        resolve_device(config.subject.device)
    check_sources(config)


SCAN = Stage(
    name="record.scan",
    title="record activations",
    reads=("corpus",),
    writes=PARTIALS,
    settings=settings,
    plan=plan,
    process=process,
    check=check,
    method="simulation",
    version=5,
)
