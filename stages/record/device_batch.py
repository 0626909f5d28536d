"""What a batch is like, put on a device once for all modules, and memory that they share."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch

from stages.evidence import SPLITS
from stages.record.sums import Batch

Tensor = torch.Tensor
ALIGNED = 2
"""Numbers in 16 bytes, at a multiple of which each tensor starts: triton compiles a kernel anew for pointers that do not."""


@dataclass(frozen=True)
class DeviceBatch:
    """int64 tensors of a Batch, all of them views of one; see there."""

    seq_ids: Tensor
    splits: Tensor
    counted: Tensor
    binned: Tensor
    keys: Tensor
    positions: Tensor
    starts: Tensor
    token_rows: Tensor
    targets: Tensor
    """(N,) row in the token table of each of `positions`."""
    binned_rows: Tensor
    """The rows of the sequences in `binned`."""
    by_split: tuple[Tensor, ...]
    """For each split the rows of its sequences."""


class Room(NamedTuple):
    """What is found of the B sequences of a batch, for U units."""

    power: Tensor
    """(B, 4, U) float64 power sums."""
    high: Tensor
    """(2, B, U) largest x and -x."""
    peaks: Tensor
    """(2, B, U) int32 positions of those."""


class DeviceBatches:
    """The present batch on each device that has asked for it, and memory that one module after the other works in."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._found: dict[torch.device, DeviceBatch] = {}
        self._rooms: dict[tuple[torch.device, int, int], Room] = {}

    def room(self, device: torch.device, sequences: int, width: int) -> Room:
        """Memory full of anything."""
        key = (device, sequences, width)
        if key not in self._rooms:
            shape = (2, sequences, width)
            self._rooms[key] = Room(
                torch.empty((sequences, 4, width), dtype=torch.float64, device=device),
                torch.empty(shape, device=device),
                torch.empty(shape, dtype=torch.int32, device=device),
            )
        return self._rooms[key]

    def of(self, batch: Batch, device: torch.device) -> DeviceBatch:
        """The batch on a device, copied there by the first module that asks."""
        if batch is not self._batch:
            self._batch, self._found = batch, {}
        if device not in self._found:
            self._found[device] = put_batch(batch, device)
        return self._found[device]


def put_batch(batch: Batch, device: torch.device) -> DeviceBatch:
    """Copy a batch to a device in one piece; the program does not wait for it."""
    arrays = (  # in the order of the fields
        batch.seq_ids,
        batch.splits,
        batch.counted,
        batch.binned,
        batch.keys,
        batch.positions,
        batch.starts,
        batch.token_rows,
        np.repeat(batch.token_rows, np.diff(batch.starts)),
        np.flatnonzero(batch.binned),
        *(np.flatnonzero(batch.splits == split) for split in range(len(SPLITS))),
    )
    sizes = [array.size + array.size % ALIGNED for array in arrays]
    starts = np.cumsum([0, *sizes]).tolist()
    packed = np.zeros(starts.pop(), np.int64)
    for start, array in zip(starts, arrays, strict=True):
        packed[start : start + array.size] = array.ravel()
    flat = torch.from_numpy(packed)
    if device.type == "cuda":
        flat = flat.pin_memory()  # torch keeps this memory until the copy is done
    there = flat.to(device, non_blocking=True)
    found = [there[start : start + array.size].view(array.shape) for start, array in zip(starts, arrays, strict=True)]
    named: dict[str, Any] = dict(zip([field.name for field in fields(DeviceBatch)], found, strict=False))
    return DeviceBatch(**named | {"by_split": tuple(found[-len(SPLITS) :])})
