"""Copies of a batch to a device, and of results back to the CPU."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.evidence import SPLITS
from stages.record.recorded_batch import Batch

Tensor = torch.Tensor


@dataclass(frozen=True)
class DeviceBatch:
    """int64 tensors of a Batch; see there."""

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


def on_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """The batch on a device. It is copied there once, for the first module that asks."""
    if device not in batch.cache:
        batch.cache[device] = put_batch(batch, device)
    found: DeviceBatch = batch.cache[device]
    return found


def put_batch(batch: Batch, device: torch.device) -> DeviceBatch:
    """Copy a batch to a device, without waiting for the copy to finish."""

    def put(array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array.astype(np.int64))
        if device.type == "cuda":
            tensor = tensor.pin_memory()  # torch keeps this memory until the copy is done
        return tensor.to(device, non_blocking=True)

    names = ("seq_ids", "splits", "counted", "binned", "keys", "positions", "starts", "token_rows")
    return DeviceBatch(
        **{name: put(getattr(batch, name)) for name in names},
        targets=put(np.repeat(batch.token_rows, np.diff(batch.starts))),
        binned_rows=put(np.flatnonzero(batch.binned)),
        by_split=tuple(put(np.flatnonzero(batch.splits == split)) for split in range(len(SPLITS))),
    )


class Copy:
    """A copy of a tensor to the CPU that may still be under way."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._there.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._there = tensor.cpu()

    def wait(self) -> npt.NDArray[Any]:
        """Wait for the copy, and return it as an array."""
        if self._event is not None:
            self._event.synchronize()
        return self._there.numpy()


@dataclass(frozen=True)
class DeviceVectors:
    """(U, K, T) activations on a device; a slice of units is copied to the CPU when it is asked for. See Vectors."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def __getitem__(self, units: slice, /) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self.values[units].cpu().numpy()
        return found
