"""Memory of a recorder, and the disk that its tables take.

Shapes: T tokens of a sequence, U units, K kept sequences, N uniformly kept ones, V tokens of the token table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.config import PerSplit, Record, RunConfig
from pipeline.evidence import SPLITS, split_of
from pipeline.subjects.activations import ModuleUnits

UNIT_BYTES = 1700
"""Memory of a unit's moments, extremes and histogram."""
SLOT_BYTES = 20
"""Memory of a kept sequence beside its activations: value, number, key."""
FIRING = 0.02
"""Share of its activations that a unit of a sparse module has above zero, at a guess; each takes 12 bytes of memory."""

COMPRESSED = 0.9
"""What is left of activations, which are mostly noise to a compressor, as bytes in the partials or as lists in the tables."""
COMPRESSED_ZEROS = 0.1
"""What is left of activations that are mostly zero."""
ROW_BYTES = 20
"""Disk of the other columns of a partial exemplar."""
PARTIAL_UNIT_BYTES, TABLE_UNIT_BYTES = 420, 1500
"""Disk of a unit's row among the partials, and in `units`."""
SUM_BYTES = 5
"""Disk of a partial sum of a token's activations."""
ABOVE_ZIPF = 1.4
"""Tokens of English text that occur at least m times, over those by the law of Zipf and Mandelbrot; 1.0 to 1.6 as measured."""


@dataclass(frozen=True)
class Recording:
    """Bytes that recording takes."""

    memory: int
    """Of one process, beside the model and the activations of a batch."""
    partials: int
    """Disk of the partials of all parts of the corpus."""
    tables: int
    """Disk of `units` and `exemplars`."""


def recording(modules: Mapping[str, ModuleUnits], config: RunConfig, vocab_size: int) -> Recording:
    """The sizes of recording some modules over the whole corpus."""
    record, corpus = config.record, config.corpus
    units = sum(module.width for module in modules.values())
    tokens = corpus.max_sequences * corpus.seq_len // 2  # half of the sequences are `explain`
    capacity = record.token_memory_mb * 2**20 // (8 * max(units, 1))
    covered = min(tokens_with(record.min_token_count, tokens, vocab_size), capacity) if record.top_tokens else 0
    size = min(record.shard_sequences, corpus.max_sequences)
    parts = -(-corpus.max_sequences // size)
    seen = min(covered, tokens_with(1, size * corpus.seq_len // 2, vocab_size))
    found = [_of_module(module, config) for module in modules.values()]
    return Recording(
        memory=recorder_bytes(modules, record, covered, corpus.seq_len, corpus.max_sequences),
        partials=parts * (sum(each for each, _, _ in found) + seen * units * SUM_BYTES) + sum(n for _, n, _ in found),
        tables=sum(tables for _, _, tables in found),
    )


def recorder_bytes(
    modules: Mapping[str, ModuleUnits], record: Record, covered: int, seq_len: int, sequences: int = 2**62
) -> int:
    """Memory of a recorder of some modules, once it is full.

    Args:
        covered: tokens of the token table.
        seq_len: tokens of the longest sequence.
        sequences: sequences of the corpus, more than are kept unless given.
    """
    total = 0
    for module in modules.values():
        polarities = len(recorded(record, module))
        kept = polarities * _sum(record.top) * (4 * seq_len + SLOT_BYTES)
        each = 12 * FIRING if module.sparse else 4
        uniform = uniform_count(record, sequences) * seq_len * each
        total += module.width * int(UNIT_BYTES + kept + uniform + 8 * covered)
    return total


def recorded(record: Record, module: ModuleUnits) -> list[str]:
    """The polarities of a module's units."""
    return [polarity for polarity in record.polarities if polarity == "+" or module.signed]


def uniform_count(record: Record, sequences: int) -> int:
    """N, of a corpus of so many sequences: the `random` ones and the pool of the bands."""
    chosen = set(range(record.pool)) if _sum(record.per_band) else set()
    for split in SPLITS:
        count = getattr(record.random, split)
        chosen.update([seq_id for seq_id in range(4 * count) if split_of(seq_id) == split][:count])
    return sum(seq_id < sequences for seq_id in chosen)


def tokens_with(occurrences: int, tokens: int, vocab_size: int) -> int:
    """How many different tokens occur so often at least among so many tokens of text.

    By the law of Zipf and Mandelbrot the r-th most frequent token has a share that falls with 1 / (r + 2.7).
    """
    total = float((1 / (np.arange(1, vocab_size + 1) + 2.7)).sum())
    return min(vocab_size, tokens // occurrences, int(ABOVE_ZIPF * tokens / (occurrences * total)))


def _of_module(module: ModuleUnits, config: RunConfig) -> tuple[int, int, int]:
    """Disk of a module's partials for each part of the corpus, of its uniformly kept sequences, and of its final rows."""
    record, sequences, length = config.record, config.corpus.max_sequences, config.corpus.seq_len
    share = COMPRESSED_ZEROS if module.sparse else COMPRESSED
    vector = 4 * length * share
    polarities = len(recorded(record, module))
    size = min(record.shard_sequences, sequences)
    each = PARTIAL_UNIT_BYTES + polarities * _kept(record.top, size) * (vector + ROW_BYTES)
    uniform = uniform_count(record, sequences) * vector
    bands = len(record.quantiles) + 1
    drawn = _kept(record.random, sequences) + min(_sum(record.per_band) * bands, record.pool)
    # both polarities show the same random sequences, which compress to one
    final = TABLE_UNIT_BYTES + (polarities * _kept(record.top, sequences) + drawn) * vector
    return int(module.width * each), int(module.width * uniform), int(module.width * final)


def _kept(counts: PerSplit, sequences: int) -> int:
    """Sequences kept of so many: half of them are in `explain`, a quarter in each other split."""
    return sum(
        min(getattr(counts, split), -(-sequences * part // 4)) for split, part in zip(SPLITS, (2, 1, 1), strict=True)
    )


def _sum(counts: PerSplit) -> int:
    return sum(getattr(counts, split) for split in SPLITS)
