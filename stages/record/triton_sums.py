"""The running state of a module on a GPU, by the kernels of `triton_kernels` and `triton_winners`, which nothing waits for.

The same as `torch_sums` in a few passes over memory. All state lies on the device, but for one part: the activations of
the strongest sequences of a module lie in pinned memory of the CPU where they would take more than half of the device's
memory that is free when the module first comes. The kernels write there as the device goes on. Both give the same.
"""

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np
import torch

from stages.evidence import SPLITS
from stages.record import triton_kernels as kernels
from stages.record import triton_winners as winners
from stages.record.device_batch import DeviceBatch, DeviceBatches, Room
from stages.record.device_rows import DeviceVectors
from stages.record.kept import counts, polarities
from stages.record.selection import NO_SEQUENCE
from stages.record.sums import Batch, TopSums, UnitSums
from stages.record.torch_sums import DeviceState
from stages.record.triton_launch import Launcher
from stages.settings import Record

MEASURED, FOLDED, ADDED = 128, 32, 512
"""Units of a program of each kernel."""
ROWS, PIECE, UNROLLED = 32, 64, 4
"""Sequences, tokens of a sequence that is kept, and tokens of one that is measured, that are looked at together."""
Tensor = torch.Tensor


class TritonSums(DeviceState):
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(
        self,
        width: int,
        seq_len: int,
        covered: int,
        config: Record,
        signed: bool,
        device: torch.device,
        batches: DeviceBatches | None = None,
    ) -> None:
        super().__init__(width, covered, config, device)
        self.batches = batches or DeviceBatches()
        self.width, self.launch = width, Launcher()
        self.polarities = polarities(config, signed)
        self.starts = np.concatenate([[0], np.cumsum(counts(config.top))]).tolist()
        self.slots = torch.tensor(self.starts, device=device)
        self.largest = 1 << (max(np.diff(self.starts).tolist()) - 1).bit_length()
        shape = (len(self.polarities), width, self.starts[-1])
        worst = [torch.inf if count == 0 else -torch.inf for count in counts(config.top)]
        self.worst_value = torch.tensor(worst, device=device).repeat(*shape[:2], 1)
        self.worst_seq = torch.full(self.worst_value.shape, NO_SEQUENCE, device=device)
        self.values = torch.full(shape, -torch.inf, device=device)
        self.seq_ids = torch.full(shape, NO_SEQUENCE, device=device)
        self.keys = torch.zeros(shape, dtype=torch.int64, device=device)
        self.vectors = room_for_vectors((*shape, seq_len), device)

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        x = activations.detach().to(self.device)
        here = self.batches.of(batch, self.device)
        self.n_tokens += len(batch.places)
        room, kind = self.batches.room(self.device, len(batch.seq_ids), self.width), kind_of(x)
        with on_device(self.device):
            self._measure(x, kind, here, room)
            if self.polarities and self.starts[-1]:
                self._keep(x, kind, here, room)
        self.keep_uniform(x, batch, here.counted)

    def _measure(self, x: Tensor, kind: Any, here: DeviceBatch, room: Room) -> None:
        sequences, tokens, width = x.shape
        shape, binned, distinct = (*x.stride(), tokens, width), here.binned_rows.shape[0], here.token_rows.shape[0]
        self.launch(
            *(kernels.measure, (sequences, blocks(width, MEASURED)), kind),
            *(x, *shape, here.counted, self.config.density_threshold, *room, self.above, self.nonfinite),
            *(MEASURED, UNROLLED),
        )
        if binned:
            self.launch(
                *(kernels.count_bins, (binned, blocks(width, MEASURED)), kind),
                *(x, *shape, here.counted, here.binned_rows, self.histogram, MEASURED),
            )
        self.launch(
            *(kernels.fold, (4, blocks(width, FOLDED)), kind),
            *(room.power, room.high, sequences, width, self.power_sums, self.minimum, self.maximum, ROWS, FOLDED),
        )
        if distinct:
            self.launch(
                *(kernels.add_tokens, (distinct, blocks(width, ADDED)), kind),
                *(x, *shape, here.positions, here.starts, here.token_rows, self.token_sums, ADDED),
            )

    def _keep(self, x: Tensor, kind: Any, here: DeviceBatch, room: Room) -> None:
        first = 0 if self.polarities[0] == "+" else 1
        self.launch(
            *(winners.keep, (self.width, len(self.polarities)), kind),
            *(
                x,
                *x.stride(),
                *x.shape,
                first,
                here.counted,
                here.seq_ids,
                here.splits,
                here.keys,
                room.high,
                room.peaks,
            ),
            *(self.slots, self.starts[-1], self.worst_value, self.worst_seq),
            *(self.values, self.seq_ids, self.keys, self.vectors, self.vectors.shape[3]),
            *(self.config.distinct, len(SPLITS), ROWS, self.largest, PIECE),
            num_warps=1,
        )

    def sums(self) -> UnitSums:
        if self.vectors.is_pinned():
            torch.cuda.synchronize(self.device)
        return self.unit_sums({polarity: self._top(p) for p, polarity in enumerate(self.polarities)})

    def _top(self, p: int) -> TopSums:
        values, seq_ids, keys = (part[p].cpu().numpy() for part in (self.values, self.seq_ids, self.keys))
        vectors = DeviceVectors(self.width, tuple(self.vectors.shape[1:]), lambda units: self.vectors[p, units])
        return TopSums(values, seq_ids, keys, vectors)


def kind_of(x: Tensor) -> tuple[Any, ...]:
    """What triton compiles kernels for, of those that take activations in; the other tensors always start at a multiple of 16 bytes."""
    return x.dtype, x.shape, x.stride(), x.data_ptr() % 16


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """What makes kernels run on a device, as they do on the current one."""
    there = device.type == "cuda" and device.index not in (None, torch.cuda.current_device())
    return torch.cuda.device(device) if there else nullcontext()


def blocks(width: int, size: int) -> int:
    """How many blocks of a size there are in a width."""
    return -(-width // size)


def room_for_vectors(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Memory for the activations of the strongest sequences, on the device where it leaves half of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if 8 * prod(shape) > free:
            return torch.empty(shape, pin_memory=True)
    return torch.empty(shape, device=device)
