"""The running state of a module on a CPU."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.threads import by_units, share_out
from stages.evidence import SPLITS
from stages.record import moments
from stages.record.histogram import BINS, STRIDE
from stages.record.kept import counts, polarities, uniform_ids
from stages.record.kernel import FULL, add_tokens, settle
from stages.record.measure import measure
from stages.record.memory import Room, zeros
from stages.record.selection import NO_SEQUENCE
from stages.record.sums import Batch, DenseRows, TopSums, UnitSums
from stages.settings import Record

Floats = npt.NDArray[np.float32]
Shape = tuple[tuple[int, ...], type]


class NumbaSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(
        self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True, room: Room | None = None
    ) -> None:
        self.width, self.seq_len, self.config, self.room = width, seq_len, config, room or Room()
        self.slots = np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)
        if seq_len > FULL:
            raise ValueError(f"sequences of {seq_len} tokens; at most {FULL} can be counted")
        self.n_tokens = self.pending = 0
        shapes: list[Shape] = [((width, STRIDE), np.uint16), ((width, BINS), np.int32)]
        top = top_shapes(width, int(self.slots[-1]), seq_len)
        recorded = polarities(config, signed)
        self.uniform_ids = {seq_id: row for row, seq_id in enumerate(uniform_ids(config).tolist())}
        kept = ((len(self.uniform_ids), seq_len, width), np.float32)
        found = zeros([*shapes, *top * len(recorded), ((covered, width), np.float64), kept])
        self.counts = tuple(found[: len(shapes)])
        self.token_sums, self.uniform_rows = found[-2:]
        self.top = {}
        for polarity in ("+", "-"):
            if polarity in recorded:
                start = len(shapes) + len(top) * recorded.index(polarity)
                self.top[polarity] = tuple(found[start : start + len(top)])
            else:
                self.top[polarity] = tuple(zeros(top_shapes(0, int(self.slots[-1]), seq_len)))
            empty(self.top[polarity], self.slots)
        self.kept: dict[int, DenseRows] = {}
        self.running: list[tuple[npt.NDArray[Any], ...]] = []
        """Of each thread, total and rest of the power sums, (4, U) each, and minimum, maximum, tokens above the threshold and tokens
        that are not finite, (U,) each."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        values = activations.detach().float().cpu().contiguous().numpy()
        shared = (
            batch.seq_ids,
            batch.splits,
            batch.counted,
            batch.binned,
            batch.keys,
            batch.places,
            batch.place_starts,
        )
        threshold, rows = np.float32(self.config.density_threshold), values.reshape(-1, self.width)

        tops = (self.top["-"], self.top["+"])
        found = self.room.found(len(values), self.seq_len, self.width)

        parts = torch.get_num_threads()
        self.running += [running_sums(self.width) for _ in range(parts - len(self.running))]
        share = -(-len(values) // parts)

        def measured(part: int, _: int) -> None:
            first, last = part * share, min((part + 1) * share, len(values))
            measure(values, shared, first, last, threshold, tops, self.running[part], found)

        def add(first: int, last: int) -> None:
            starts, table_rows = batch.starts[first : last + 1], batch.token_rows[first:last]
            add_tokens(rows, batch.positions, starts, table_rows, self.token_sums)

        def settled(first: int, last: int) -> None:
            distinct, slots, pending = self.config.distinct, self.slots, self.pending
            bits = values.view(np.int32)
            settle(values, bits, shared, first, last, distinct, slots, self.counts, tops, found, pending)

        # Memory is read fastest from one end of a row to the other, so only what is left is shared out by units.
        share_out((parts, measured))
        share_out((len(batch.token_rows), add), by_units(self.width, settled))
        self.n_tokens += len(batch.places)
        for size in np.diff(batch.place_starts)[batch.binned].tolist():
            self.pending = self.pending + size if self.pending + size <= FULL else size
        self._keep_uniform(values, batch)

    def _keep_uniform(self, values: Floats, batch: Batch) -> None:
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                rows = self.uniform_rows[self.uniform_ids[seq_id], : batch.lengths[b]]
                rows[:] = values[b, : batch.lengths[b]]
                rows[~batch.counted[b, : batch.lengths[b]]] = np.nan
                self.kept[seq_id] = DenseRows(rows)

    def sums(self) -> UnitSums:
        total, rest, minimum, maximum, above, nonfinite = map(
            list, zip(*(self.running or [running_sums(self.width)]), strict=True)
        )
        power = reduce(moments.add, map(np.stack, zip(total, rest, strict=True)))
        fast, histogram = self.counts
        recorded = {polarity: top for polarity, top in self.top.items() if top[0].shape[1]}
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=np.sum(nonfinite, axis=0),
            minimum=np.min(minimum, axis=0),
            maximum=np.max(maximum, axis=0),
            above=np.sum(above, axis=0),
            power_sums=np.stack([power[0], power[1]], axis=1),
            histogram=histogram + fast[:, :BINS].astype(np.int64),
            top={polarity: TopSums(*top[3:]) for polarity, top in recorded.items()},
            token_sums=self.token_sums,
        )

    def uniform(self) -> Mapping[int, DenseRows]:
        return self.kept


def running_sums(width: int) -> tuple[npt.NDArray[Any], ...]:
    """Sums of U units over no token."""
    power, numbers = ((4, width), np.float64), ((width,), np.int64)
    found = zeros([power, power, ((width,), np.float32), ((width,), np.float32), numbers, numbers])
    found[2][:], found[3][:] = np.inf, -np.inf
    return tuple(found)


def top_shapes(width: int, slots: int, seq_len: int) -> list[Shape]:
    """The arrays of one polarity, as in `winners`."""
    worst = (len(SPLITS), width)
    return [
        (worst, np.float32),
        (worst, np.int64),
        (worst, np.int64),
        ((width, slots), np.float32),
        ((width, slots), np.int64),
        ((width, slots), np.int64),
        ((width, slots, seq_len), np.float32),
    ]


def empty(top: tuple[npt.NDArray[Any], ...], slots: npt.NDArray[np.int64]) -> None:
    """Make the slots of one polarity empty. A split without slots is never beaten."""
    worst_value, worst_seq, worst_slot, values, seq_ids, *_ = top
    worst_value[:] = np.where(np.diff(slots) > 0, -np.inf, np.inf)[:, None]
    worst_slot[:] = slots[:-1, None]
    worst_seq[:] = seq_ids[:] = NO_SEQUENCE
    values[:] = -np.inf
