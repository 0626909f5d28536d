"""The running state of a module on a CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Record
from pipeline.evidence import SPLITS
from pipeline.kept import counts, polarities, uniform_ids
from pipeline.subjects.fast_activations import finish_rows
from stages.record.histogram import BINS, STRIDE
from stages.record.kernel import FULL, add_tokens, scan_batch
from stages.record.memory import zeros
from stages.record.selection import NO_SEQUENCE
from stages.record.sums import Batch, DenseRows, TopSums, UnitSums
from stages.record.threads import by_units, share_out

Floats = npt.NDArray[np.float32]


class NumbaSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True) -> None:
        self.width, self.config = width, config
        self.slots = np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)
        if seq_len > FULL:
            raise ValueError(f"sequences of {seq_len} tokens; at most {FULL} can be counted")
        self.n_tokens = self.pending = 0
        sums, numbers, slots = ((4, width), np.float64), ((width,), np.int64), int(self.slots[-1])
        shapes = [sums, sums, *[((width,), np.float32)] * 2, numbers, numbers]
        shapes += [((width, STRIDE), np.uint16), ((width, BINS), np.int32)]
        top = top_shapes(width, slots, seq_len)
        recorded = polarities(config, signed)
        self.uniform_ids = {seq_id: row for row, seq_id in enumerate(uniform_ids(config).tolist())}
        kept = ((len(self.uniform_ids), seq_len, width), np.float32)
        found = zeros([*shapes, *top * len(recorded), ((covered, width), np.float64), kept])
        self.state = tuple(found[: len(shapes)])
        self.state[2][:], self.state[3][:] = np.inf, -np.inf
        self.token_sums, self.uniform_rows = found[-2:]
        self.top = {}
        for polarity in ("+", "-"):
            if polarity in recorded:
                start = len(shapes) + len(top) * recorded.index(polarity)
                self.top[polarity] = tuple(found[start : start + len(top)])
            else:
                self.top[polarity] = tuple(zeros(top_shapes(0, slots, seq_len)))
            empty(self.top[polarity], self.slots)
        self.kept: dict[int, DenseRows] = {}

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        values = activations.detach().float().cpu().contiguous().numpy()
        self._scan(values, batch)

    def finish(self, gate: Any, up: Any, activation: int, batch: Batch) -> None:
        """Compute act(gate) * up into `gate`, and take it in.

        Args:
            gate: a (B, T, U) float32 tensor on the CPU, contiguous.
            up: another, or None for act(gate) alone.
            activation: as in `fast_activations`.
        """
        values = gate.numpy()
        rows = values.reshape(-1, self.width)
        others = rows[:, :0] if up is None else up.numpy().reshape(-1, self.width)
        share_out((len(rows), lambda first, last: finish_rows(activation, rows[first:last], others[first:last])))
        self._scan(values, batch)

    def _scan(self, values: Floats, batch: Batch) -> None:
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

        def scan(first: int, last: int) -> None:
            scan_batch(
                values,
                values.view(np.int32),
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

        def add(first: int, last: int) -> None:
            starts, table_rows = batch.starts[first : last + 1], batch.token_rows[first:last]
            add_tokens(rows, batch.positions, starts, table_rows, self.token_sums)

        # Tokens are shared out by themselves, as memory is read fastest from one end of a row to the other.
        share_out(by_units(self.width, scan), (len(batch.token_rows), add))
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


def top_shapes(width: int, slots: int, seq_len: int) -> list[tuple[tuple[int, ...], type]]:
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
