"""The running state of a module on a GPU, by kernels of triton, for which the program never waits.

The result is that of `torch_sums`, in a few passes over memory. All state lies on the device, with one exception: if the
activations of the top-k sequences would take more than half of the free memory of the device, they lie in pinned memory of
the CPU, to which the kernels write directly.
"""

from contextlib import nullcontext
from math import prod
from typing import Any

import numpy as np
import torch

from stages.evidence import SPLITS
from stages.record.backends.contract import TopK, UnitSums
from stages.record.backends.device import DeviceBatch, DeviceState, DeviceVectors, on_device
from stages.record.backends.triton_kernels import add_tokens, count_bins, fold, keep_top_k, measure
from stages.record.recorded_batch import Batch
from stages.record.sequences import NO_SEQUENCE, counts, polarities, slot_starts
from stages.settings import Record

MEASURED, FOLDED, ADDED = 128, 32, 512
"""Units of a program of each kernel."""
ROWS, PIECE, UNROLLED = 32, 64, 4
"""Sequences, tokens of a sequence that is kept, and tokens of one that is measured, that are looked at together."""
Tensor = torch.Tensor


class TritonSums(DeviceState):
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(
        self, device: torch.device, width: int, seq_len: int, covered: int, config: Record, signed: bool = True
    ) -> None:
        super().__init__(width, covered, config, device)
        self.width = width
        self.polarities = polarities(config, signed)
        starts = slot_starts(config)
        self.slots = torch.from_numpy(starts).to(device)
        self.largest = 1 << (int(np.diff(starts).max()) - 1).bit_length()
        shape = (len(self.polarities), width, int(starts[-1]))
        worst = [torch.inf if count == 0 else -torch.inf for count in counts(config.top)]
        self.worst_value = torch.tensor(worst, device=device).repeat(*shape[:2], 1)
        self.worst_seq = torch.full(self.worst_value.shape, NO_SEQUENCE, device=device)
        self.values = torch.full(shape, -torch.inf, device=device)
        self.seq_ids = torch.full(shape, NO_SEQUENCE, device=device)
        self.keys = torch.zeros(shape, dtype=torch.int64, device=device)
        self.vectors = memory_for_vectors((*shape, seq_len), device)

    def add(self, activations: Any, batch: Batch) -> None:
        """Add a (B, T, U) tensor."""
        x = activations.detach().to(self.device)
        here = on_device(batch, self.device)
        self.n_tokens += len(batch.places)
        ends = (2, len(x), self.width)
        high = torch.empty(ends, device=self.device)  # largest x and -x
        peaks = torch.empty(ends, dtype=torch.int32, device=self.device)  # their positions
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            self._measure(x, here, high, peaks)
            if self.polarities and self.values.shape[2]:
                self._keep(x, here, high, peaks)
        self.keep_uniform(x, batch, here.counted)

    def _measure(self, x: Tensor, here: DeviceBatch, high: Tensor, peaks: Tensor) -> None:
        sequences, tokens, width = x.shape
        shape, units = (*x.stride(), tokens, width), -(-width // MEASURED)
        power = torch.empty((sequences, 4, width), dtype=torch.float64, device=self.device)
        measure[sequences, units](
            *(x, *shape, here.counted, self.config.density_threshold, power, high, peaks, self.above, self.nonfinite),
            *(MEASURED, UNROLLED),
        )
        if len(here.binned_rows):
            count_bins[len(here.binned_rows), units](
                x, *shape, here.counted, here.binned_rows, self.histogram, MEASURED
            )
        fold[4, -(-width // FOLDED)](
            power, high, sequences, width, self.power_sums, self.minimum, self.maximum, ROWS, FOLDED
        )
        if len(here.token_rows):
            add_tokens[len(here.token_rows), -(-width // ADDED)](
                x, *shape, here.positions, here.starts, here.token_rows, self.token_sums, ADDED
            )

    def _keep(self, x: Tensor, here: DeviceBatch, high: Tensor, peaks: Tensor) -> None:
        first = 0 if self.polarities[0] == "+" else 1
        keep_top_k[self.width, len(self.polarities)](
            *(x, *x.stride(), *x.shape, first),
            *(here.counted, here.seq_ids, here.splits, here.keys, high, peaks),
            *(self.slots, self.values.shape[2], self.worst_value, self.worst_seq),
            *(self.values, self.seq_ids, self.keys, self.vectors, self.vectors.shape[3]),
            *(self.config.distinct, len(SPLITS), ROWS, self.largest, PIECE),
            num_warps=1,
        )

    def sums(self) -> UnitSums:
        if self.vectors.is_pinned():
            torch.cuda.synchronize(self.device)
        return self.unit_sums({polarity: self._top(p) for p, polarity in enumerate(self.polarities)})

    def _top(self, p: int) -> TopK:
        values, seq_ids, keys = (part[p].cpu().numpy() for part in (self.values, self.seq_ids, self.keys))
        return TopK(values, seq_ids, keys, DeviceVectors(self.vectors[p]))


def memory_for_vectors(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Memory for the activations of the top-k sequences, on the device where it leaves half of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if 8 * prod(shape) > free:
            return torch.empty(shape, pin_memory=True)
    return torch.empty(shape, device=device)
