"""The running state of a module whose activations are mostly zero, from those alone that are not.

What it gives equals what `numba_sums` gives for the same activations with their zeros, up to the rounding of the power
sums, but for one thing: only sequences on which a unit fires are kept as `top`. A zero is a value for all statistics, and
the `random` sequences of a unit have theirs, so a unit that never fires has rows too.

The sums are taken on the CPU. From a GPU the triples alone are copied there, and taken in when the next batch comes: so
the program does not wait for them.

Memory: rows of activations are held for slots in use alone, and the uniformly kept sequences as triples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.threads import share_out
from stages.record.device_rows import Coming, fetch
from stages.record.histogram import BINS
from stages.record.kept import counts, polarities, uniform_ids
from stages.record.memory import zeros
from stages.record.numba_sums import empty, top_shapes
from stages.record.sparse_kernel import scan_triples
from stages.record.sums import Batch, TopSums, UniformRows, UnitSums
from stages.settings import Record

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
GROWTH = 1.5
ZERO_BIN = BINS // 2
"""The histogram's bin of 0.0."""


class SparseSums:
    """Accumulator of SparseActivations for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = False) -> None:
        """signed: whether activations can be negative, so that the polarity `-` is kept too."""
        self.width, self.config = width, config
        self.parts = min(torch.get_num_threads(), max(width, 1))
        self.share = max(-(-width // self.parts), 1)
        """Units of each part."""
        self.slots = np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)
        self.n_tokens = 0
        self.state = (
            np.zeros((4, width)),  # leading parts of the power sums
            np.zeros((4, width)),  # their rests
            np.full(width, np.inf, np.float32),  # smallest and
            np.full(width, -np.inf, np.float32),  # largest of the finite values that are not zero
            np.zeros(width, np.int64),  # values above the threshold
            np.zeros(width, np.int64),  # values that are not finite
            np.zeros(width, np.int64),  # all values that are not zero
            np.zeros((width, BINS), np.int32),
            np.zeros((covered, width)),  # sums by token
        )
        self.scratch = (
            np.zeros((width, 4)),  # power sums of the present sequence
            np.zeros((width, 2), np.float32),  # its largest x and -x
            np.zeros((width, 2), np.int32),  # their positions
            np.full(width, -1, np.int32),  # last triple of each unit
        )
        self.kept = {polarity: Kept(width, seq_len, config, self.parts) for polarity in polarities(config, signed)}
        self._uniform_ids = uniform_ids(config)
        self._uniform: dict[int, UniformRows] = {}
        self._coming: tuple[Coming, Batch] | None = None
        """The triples of the last batch, as int32."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Take SparseActivations in."""
        values = activations.values.detach().float().view(torch.int32)
        self._take()
        self._coming = fetch(torch.stack([activations.positions.int(), activations.units.int(), values])), batch

    def _take(self) -> None:
        """Take in the triples that are on their way."""
        if self._coming is not None:
            triples, batch = self._coming
            self._coming = None
            positions, units, bits = triples.wait()
            self._scan(positions, units, bits.view(np.float32), batch)

    def _scan(self, positions: Ints, units: Ints, values: Floats, batch: Batch) -> None:
        self.n_tokens += int(batch.counted.sum())
        kept = list(self.kept.values()) or [Kept(0, 0, self.config, 1)]  # which compiled code needs to know the types
        most = int(np.bincount(units // self.share, minlength=1).max())
        for polarity in kept:
            polarity.reserve(most)
        given = (
            positions,
            units,
            values,
            values.view(np.int32),
            np.empty(len(values), np.int32),
            (batch.counted, batch.keys, _token_rows(batch), batch.seq_ids, batch.splits),
            (
                self.slots,
                np.float32(self.config.density_threshold),
                self.config.distinct,
                np.asarray(["+-".index(polarity) for polarity in self.kept], np.int64),
            ),
            self.state,
            (*self.scratch, np.empty(len(values), np.int32), np.empty((self.parts, self.share), np.int32)),
            tuple((polarity.top, polarity.rows, polarity.used) for polarity in kept),
        )

        def scan(first: int, last: int) -> None:
            for part in range(first, last):
                scan_triples(part, self.share, *given)

        share_out((self.parts, scan))
        for b in np.flatnonzero(np.isin(batch.seq_ids, self._uniform_ids)):
            self._uniform[int(batch.seq_ids[b])] = _sparse_rows(positions, units, values, batch, int(b))

    def uniform(self) -> Mapping[int, UniformRows]:
        """The uniformly kept sequences by seq_id."""
        self._take()
        return self._uniform

    def sums(self) -> UnitSums:
        self._take()
        total, rest, minimum, maximum, above, nonfinite, entries, histogram, token_sums = self.state
        zeros = self.n_tokens - entries
        zero = np.where(zeros > 0, np.float32(0), np.float32(np.nan))
        counted = histogram.astype(np.int64)
        counted[:, ZERO_BIN] += zeros
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=nonfinite,
            minimum=np.fmin(minimum, zero),
            maximum=np.fmax(maximum, zero),
            above=above + (zeros if self.config.density_threshold < 0 else 0),
            power_sums=np.stack([total, rest], axis=1),
            histogram=counted,
            top={polarity: kept.sums() for polarity, kept in self.kept.items()},
            token_sums=token_sums,
        )


class Kept:
    """The kept sequences of one polarity, with K slots a unit; a growing pool holds a row for each slot in use.

    Each part of the units has every n-th row of the pool, so that threads take new ones without asking each other.
    """

    def __init__(self, width: int, seq_len: int, config: Record, parts: int) -> None:
        starts = np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)
        self.top = (*zeros(top_shapes(width, int(starts[-1]), 0)[:6]), np.empty((0, seq_len), np.float32))
        empty(self.top, starts)
        """As in `winners`, but for the pool."""
        self.rows = np.full(self.top[3].shape, -1, np.int32)
        """(U, K) row of the pool, -1 for an empty slot."""
        self.used = np.zeros(parts, np.int64)
        """(parts,) rows of the pool in use."""

    def reserve(self, more: int) -> None:
        """Make room for some more rows of the pool for each part."""
        pool, used, parts = self.top[6], int(self.used.max()), len(self.used)
        most = -(-len(self.rows) // parts) * self.rows.shape[1]
        least = min(used + more, most) * parts
        if len(pool) < least:
            grown = np.empty((min(max(least, int(len(pool) * GROWTH)), most * parts), pool.shape[1]), np.float32)
            grown[: used * parts] = pool[: used * parts]
            self.top = (*self.top[:6], grown)

    def sums(self) -> TopSums:
        _, _, _, values, seq_ids, keys, pool = self.top
        return TopSums(values=values, seq_ids=seq_ids, keys=keys, vectors=PooledVectors(self.rows, pool))


@dataclass(frozen=True)
class PooledVectors:
    """(U, K, T) activations of which a few units' are made at a time; NaN in empty slots."""

    rows: npt.NDArray[np.int32]
    """(U, K) rows of the pool, -1 for an empty slot."""
    pool: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.rows.shape, self.pool.shape[1])

    def __getitem__(self, part: slice) -> Floats:
        rows = self.rows[part]
        found = np.full((*rows.shape, self.pool.shape[1]), np.nan, np.float32)
        found[rows >= 0] = self.pool[rows[rows >= 0]]
        return found


@dataclass(frozen=True)
class SparseRows:
    """The activations of a module on one sequence of T tokens, by unit; see UniformRows."""

    units: npt.NDArray[np.int32]
    """(N,) rising."""
    places: npt.NDArray[np.int32]
    """(N,) positions in the sequence."""
    values: Floats
    counted: npt.NDArray[np.bool_]
    """(T,)"""

    def block(self, start: int, stop: int) -> Floats:
        """(T, stop - start) activations of some units, NaN at the positions that do not count."""
        found = np.zeros((len(self.counted), stop - start), np.float32)
        part = slice(*np.searchsorted(self.units, [start, stop]))
        found[self.places[part], self.units[part] - start] = self.values[part]
        found[~self.counted] = np.nan
        return found


def _sparse_rows(positions: Ints, units: Ints, values: Floats, batch: Batch, b: int) -> SparseRows:
    """A copy of the triples of the sequence in row b, by unit."""
    tokens, length = batch.counted.shape[1], int(batch.lengths[b])
    part = slice(*np.searchsorted(positions, [b * tokens, b * tokens + length]))
    order = np.argsort(units[part], kind="stable")
    return SparseRows(
        units[part][order],
        positions[part][order] - np.int32(b * tokens),
        values[part][order],
        batch.counted[b, :length].copy(),
    )


def _token_rows(batch: Batch) -> npt.NDArray[np.int32]:
    """(B, T) row of each position in the table of tokens, -1 where it has none."""
    rows = np.full(batch.counted.size, -1, np.int32)
    rows[batch.positions] = np.repeat(batch.token_rows, np.diff(batch.starts))
    return rows.reshape(batch.counted.shape)
