"""The running state of a module on a CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Record
from pipeline.evidence import SPLITS
from stages.record.histogram import BINS
from stages.record.kernel import FULL, STRIDE, add_tokens, scan_batch
from stages.record.selection import NO_SEQUENCE, counts, polarities, uniform_ids
from stages.record.sums import Batch, DenseRows, TopSums, UnitSums
from stages.record.threads import over_units


class NumbaSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True) -> None:
        self.width, self.config = width, config
        self.slots = np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)
        if seq_len > FULL:
            raise ValueError(f"sequences of {seq_len} tokens; at most {FULL} can be counted")
        self.n_tokens = self.pending = 0
        self.state = (
            np.zeros((4, width)),
            np.zeros((4, width)),
            np.full(width, np.inf, np.float32),
            np.full(width, -np.inf, np.float32),
            np.zeros(width, np.int64),
            np.zeros(width, np.int64),
            np.zeros((width, STRIDE), np.uint16),
            np.zeros((width, BINS), np.int32),
        )
        recorded = polarities(config, signed)
        self.top = {
            polarity: empty_top(width if polarity in recorded else 0, seq_len, config) for polarity in ("+", "-")
        }
        self.token_sums = np.zeros((covered, width))
        self.uniform_ids = frozenset(uniform_ids(config).tolist())
        self.kept: dict[int, DenseRows] = {}

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        values = activations.detach().float().cpu().contiguous().numpy()
        self.n_tokens += len(batch.places)
        shared = (
            batch.lengths,
            batch.seq_ids,
            batch.splits,
            batch.counted,
            batch.keys,
            batch.places,
            batch.place_starts,
        )
        bits, threshold = values.view(np.int32), np.float32(self.config.density_threshold)
        rows = values.reshape(-1, self.width)

        def scan(first: int, last: int) -> None:
            scan_batch(
                values,
                bits,
                shared,
                first,
                last,
                threshold,
                self.config.distinct,
                self.slots,
                self.state,
                self.top["+"],
                self.top["-"],
                self.pending,
            )
            add_tokens(
                rows[:, first:last], batch.positions, batch.starts, batch.token_rows, self.token_sums[:, first:last]
            )

        over_units(self.width, scan)
        for size in np.diff(batch.place_starts).tolist():
            self.pending = self.pending + size if self.pending + size <= FULL else size
        self._keep_uniform(values, batch)

    def _keep_uniform(self, values: npt.NDArray[np.float32], batch: Batch) -> None:
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                rows = values[b, : batch.lengths[b]].copy()
                rows[~batch.counted[b, : batch.lengths[b]]] = np.nan
                self.kept[seq_id] = DenseRows(rows)

    def sums(self) -> UnitSums:
        total, rest, minimum, maximum, above, nonfinite, fast, histogram = self.state
        recorded = {polarity: top for polarity, top in self.top.items() if top[0].shape[1]}
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=nonfinite,
            minimum=minimum,
            maximum=maximum,
            above=above,
            power_sums=np.stack([total, rest], axis=1),
            histogram=histogram + fast[:, :BINS].astype(np.int64),
            top={polarity: TopSums(*top[3:]) for polarity, top in recorded.items()},
            token_sums=self.token_sums,
        )

    def uniform(self) -> Mapping[int, DenseRows]:
        return self.kept


def empty_top(width: int, seq_len: int, config: Record) -> tuple[npt.NDArray[Any], ...]:
    """The state of one polarity, as in `winners`. A split without slots is never beaten."""
    kept = np.asarray(counts(config.top))
    starts = np.concatenate([[0], np.cumsum(kept)])
    slots = int(starts[-1])
    worst = np.where(kept > 0, -np.inf, np.inf).astype(np.float32)
    return (
        np.repeat(worst[:, None], width, axis=1),
        np.full((len(SPLITS), width), NO_SEQUENCE),
        np.repeat(starts[:-1, None], width, axis=1).astype(np.int64),
        np.full((width, slots), -np.inf, np.float32),
        np.full((width, slots), NO_SEQUENCE),
        np.zeros((width, slots), np.int64),
        np.empty((width, slots, seq_len), np.float32),
    )
