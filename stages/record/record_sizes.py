"""What recording takes, before it is done: forward passes, memory of a recorder, and the disk of its tables.

Shapes: T tokens of a sequence, U units, K kept sequences, N uniformly kept ones, V tokens of the token table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.config import RunConfig
from pipeline.subjects.activations import ModuleUnits
from stages.record.sequences import counts, polarities, uniform_ids
from stages.settings import PerSplit, Record

UNIT_BYTES = 1250
"""Memory of a unit's moments, extremes and histogram."""
SLOT_BYTES = 20
"""Memory of a top-k slot beside its activations: value, seq_id, key."""
SCRATCH_BYTES = 48
"""Memory for what is found of a unit's sequence: extremes and power sums."""
FIRING = 0.02
"""Share of its activations that a unit of a sparse module has above zero, at a guess; each takes 12 bytes of memory."""

PARTIAL_ROW_BYTES, TABLE_ROW_BYTES = 14, 5
"""Disk of the columns of an exemplar beside its activations, among the partials and in `exemplars`."""
SIGN_AND_EXPONENT = 2.6
"""Bits that are left of these two; those of the mantissa are noise to a compressor."""
BURSTS = 0.65
"""Tokens of English text that count, as far as the number of different ones goes; 0.6 to 0.7 as measured."""
MANY_PARTIALS = 8
"""From this many times the disk of the final rows on, the estimate says how partial records can be fewer."""


@dataclass(frozen=True)
class _Disk:
    """What the rows of a kind of unit take once compressed, as measured."""

    partial_unit: int
    """Bytes of a unit's row among the partials."""
    table_unit: int
    """The same in `units`."""
    token_sum: float
    """Bytes of a partial sum of a token's activations."""
    top: float
    uniform: float
    """Share that is left of activations as float32 in the partials, of the top and of the uniformly kept sequences."""


DENSE = _Disk(420, 1500, 5, 0.9, 0.92)
SPARSE = _Disk(110, 560, 0.3, 0.05, 0.014)
MEAN_BYTES = 4.5
"""A mean activation as float32, with what its token's id and count add."""
SPARSE_TABLE = 0.025
"""Share that is left of a sparse module's activations in `exemplars`."""


@dataclass(frozen=True)
class RecordSizes:
    """Upper bounds, in bytes but for the first three; a corpus smaller than `max_sequences` takes less."""

    units: int
    forward_passes: int
    parts: int
    """Shards that the corpus is scanned in."""
    memory: int
    """Of the recorder, in each process beside the model and the activations of a batch."""
    module: int
    """Recorder state of the largest module."""
    partials: int
    """Disk of the partials of all parts of the corpus, until they are merged."""
    tables: int
    """Disk of `units`, `token_means` and `exemplars`."""


def record_sizes(config: RunConfig) -> RecordSizes:
    """The sizes of recording a run's modules over its whole corpus.

    Raises:
        UserError: the subject or one of its modules does not exist.
    """
    from pipeline.subjects.activation_sources import describe_modules
    from pipeline.subjects.loading.model_loading import describe_model

    vocab_size = describe_model(config.subject.model, config.subject.trust_remote_code).vocab_size
    return sizes_of(describe_modules(config), config, vocab_size)


def sizes_of(modules: Mapping[str, ModuleUnits], config: RunConfig, vocab_size: int) -> RecordSizes:
    """The sizes of recording some modules."""
    record, corpus = config[Record], config.corpus
    units = sum(module.width for module in modules.values())
    sums = sum(module.width * (SPARSE if module.sparse else DENSE).token_sum for module in modules.values())
    means = sum(module.width * _share(module, record) * MEAN_BYTES for module in modules.values())
    tokens = corpus.max_sequences * corpus.seq_len // 2  # half of the sequences are `explain`
    capacity = record.token_memory_mb * 2**20 // (8 * max(units, 1))
    covered = min(distinct_tokens(tokens, vocab_size), capacity)
    size = min(record.shard_sequences, corpus.max_sequences)
    parts = -(-corpus.max_sequences // size)
    seen = min(covered, distinct_tokens(size * corpus.seq_len // 2, vocab_size))
    found = [_disk_of(module, config) for module in modules.values()]
    shape = (record, covered, corpus.seq_len, corpus.max_sequences)
    return RecordSizes(
        units=units,
        forward_passes=-(-corpus.max_sequences // record.batch_size),
        parts=parts,
        memory=recorder_bytes(modules, *shape),
        module=max(_state_bytes(module, *shape) for module in modules.values()),
        partials=parts * (sum(each for each, _, _ in found) + int(seen * sums)) + sum(n for _, n, _ in found),
        tables=sum(tables for _, _, tables in found) + int(covered * means),
    )


def recorder_bytes(
    modules: Mapping[str, ModuleUnits], record: Record, covered: int, seq_len: int, sequences: int = 2**62
) -> int:
    """Memory of a recorder of some modules, once it is full, with its scratch buffers.

    Args:
        covered: tokens of the token table.
        seq_len: tokens of the longest sequence.
        sequences: sequences of the corpus, more than are kept unless given.
    """
    widths = {0 if module.sparse else module.width for module in modules.values()}
    scratch = record.batch_size * sum(widths) * SCRATCH_BYTES
    return scratch + sum(_state_bytes(module, record, covered, seq_len, sequences) for module in modules.values())


def _state_bytes(module: ModuleUnits, record: Record, covered: int, seq_len: int, sequences: int) -> int:
    """Memory of what a recorder keeps of a module, once it is full."""
    signs = len(polarities(record, module.signed))
    kept = signs * sum(counts(record.top)) * (4 * seq_len + SLOT_BYTES)
    each = 12 * FIRING if module.sparse else 4
    uniform = (uniform_ids(record) < sequences).sum() * seq_len * each
    return module.width * int(UNIT_BYTES + kept + uniform + 8 * covered)


def distinct_tokens(tokens: int, vocab_size: int) -> int:
    """How many different tokens occur in a text of so many.

    By the law of Zipf and Mandelbrot the r-th most frequent token has a share that falls with 1 / (r + 2.7). Words come again within
    a document, so fewer are different than if they were drawn one by one.
    """
    weights = 1 / (np.arange(1, vocab_size + 1) + 2.7)
    return int((1 - np.exp(-BURSTS * tokens * weights / weights.sum())).sum())


def _disk_of(module: ModuleUnits, config: RunConfig) -> tuple[int, int, int]:
    """Disk of a module's partials for each part of the corpus, of its uniformly kept sequences, and of its final rows."""
    record, sequences, length = config[Record], config.corpus.max_sequences, config.corpus.seq_len
    disk, share = SPARSE if module.sparse else DENSE, _share(module, record)
    signs = len(polarities(record, module.signed))
    size = min(record.shard_sequences, sequences)
    each = disk.partial_unit + signs * _kept(record.top, size) * (4 * length * disk.top + PARTIAL_ROW_BYTES)
    uniform = (uniform_ids(record) < sequences).sum() * 4 * length * disk.uniform
    top, random = signs * _kept(record.top, sequences), _kept(record.random, sequences)
    bands = min(sum(counts(record.per_band)) * (len(record.quantiles) + 1), record.pool)
    rows = top + signs * (random + bands)
    # both polarities show the same random sequences, which compress to one
    final = disk.table_unit + rows * TABLE_ROW_BYTES + (top + random + bands) * 4 * length * share
    return int(module.width * each), int(module.width * uniform), int(module.width * final)


def _share(module: ModuleUnits, record: Record) -> float:
    """What is left of a module's activations as float32 in the final rows."""
    return SPARSE_TABLE if module.sparse else (record.activation_bits + SIGN_AND_EXPONENT) / 32


def _kept(setting: PerSplit, sequences: int) -> int:
    """Sequences kept of so many: half of them are in `explain`, a quarter in each other split."""
    return sum(min(count, -(-sequences * part // 4)) for count, part in zip(counts(setting), (2, 1, 1), strict=True))


def recording_sizes(config: RunConfig) -> dict[str, str]:
    """The sizes in words."""
    found, size = record_sizes(config), config[Record].shard_sequences
    partials = f"{found.partials / 2**20:,.0f} MiB"
    if found.parts > 1 and found.partials > MANY_PARTIALS * found.tables:
        partials += f", in {found.parts} parts; fewer take less: raise record.shard_sequences = {size}"
    return {
        "units recorded": f"{found.units:,}",
        "forward passes of the subject": f"{found.forward_passes:,}",
        "memory of the recorder, in each process": f"{found.memory / 2**20:,.0f} MiB",
        "of it for the largest module": f"{found.module / 2**20:,.0f} MiB",
        "disk of partial records, until they are merged": partials,
        "disk of units, token means and exemplars": f"{found.tables / 2**20:,.0f} MiB",
    }
