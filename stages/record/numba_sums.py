"""The running state of a module on a CPU."""

from typing import Any

import numpy as np

from pipeline.config import Record
from pipeline.evidence import SPLITS
from stages.record.histogram import BINS
from stages.record.kernel import STRIDE, add_tokens, scan_batch
from stages.record.selection import NO_SEQUENCE, counts
from stages.record.sums import Batch, UnitSums


class NumbaSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record) -> None:
        self.config = config
        kept = counts(config.top)
        self.slots = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        slots = int(self.slots[-1])
        self.n_tokens = 0
        self.state = (
            np.zeros((4, width)),
            np.zeros((4, width)),
            np.full(width, np.inf, np.float32),
            np.full(width, -np.inf, np.float32),
            np.zeros(width, np.int64),
            np.zeros(width, np.int64),
            np.zeros((width, STRIDE), np.int32),
        )
        full = np.where(np.asarray(kept) > 0, -np.inf, np.inf).astype(np.float32)
        self.top = (
            np.repeat(full[:, None], width, axis=1),
            np.full((len(SPLITS), width), NO_SEQUENCE),
            np.repeat(self.slots[:-1, None], width, axis=1),
            np.full((width, slots), -np.inf, np.float32),
            np.full((width, slots), NO_SEQUENCE),
            np.zeros((width, slots, seq_len), np.float32),
        )
        self.token_sums = np.zeros((covered, width))

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        values = activations.detach().float().cpu().contiguous().numpy()
        skip = self.config.skip_positions
        self.n_tokens += int(np.maximum(batch.lengths - skip, 0).sum())
        scan_batch(
            values,
            values.view(np.int32),
            batch.lengths,
            batch.seq_ids,
            batch.splits,
            self.slots,
            skip,
            np.float32(self.config.density_threshold),
            self.state,
            self.top,
        )
        rows = values.reshape(-1, values.shape[2])
        add_tokens(rows, batch.positions, batch.starts, batch.token_rows, self.token_sums)

    def sums(self) -> UnitSums:
        total, rest, minimum, maximum, above, nonfinite, histogram = self.state
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=nonfinite,
            minimum=minimum,
            maximum=maximum,
            above=above,
            power_sums=np.stack([total, rest], axis=1),
            histogram=histogram[:, :BINS].astype(np.int64),
            top_values=self.top[3],
            top_seq_ids=self.top[4],
            top_vectors=self.top[5],
            token_sums=self.token_sums,
        )
