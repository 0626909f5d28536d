"""Rows that lie on a device, read on the CPU: the next ones are copied while the program works on those before."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Tensor = torch.Tensor
CUDA: Any = torch.cuda


class DeviceVectors:
    """(U, K, T) activations of which some units' at a time are on the CPU; see `sums.Vectors`."""

    def __init__(self, rows: int, shape: tuple[int, ...], take: Callable[[slice], Tensor]) -> None:
        """take: gives the (rows, K, T) activations of some units, on the device."""
        self.shape = shape
        self._rows, self._take = rows, take
        self._coming: dict[tuple[int, int], Coming] = {}

    def __getitem__(self, units: slice, /) -> npt.NDArray[np.float32]:
        start, stop, _ = units.indices(self._rows)
        coming = self._coming.pop((start, stop), None) or fetch(self._take(slice(start, stop)))
        following = (stop, min(stop + stop - start, self._rows))
        self._coming = {following: fetch(self._take(slice(*following)))} if stop < self._rows else {}
        return coming.wait()


@dataclass(frozen=True)
class Coming:
    """A tensor on its way to the CPU."""

    tensor: Tensor
    event: Any

    def wait(self) -> npt.NDArray[Any]:
        """The tensor as an array, once it is there."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensor.numpy()


def fetch(tensor: Tensor) -> Coming:
    """Start to copy a tensor to the CPU, beside what the device does next. Nothing may write to it until it is there."""
    if tensor.device.type != "cuda":
        return Coming(tensor.cpu(), None)
    there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    stream = _copying(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        there.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)
        event = CUDA.Event()
        event.record(stream)
    return Coming(there, event)


_STREAMS: dict[torch.device, Any] = {}


def _copying(device: torch.device) -> Any:
    """The stream on which copies from a device run."""
    if device not in _STREAMS:
        _STREAMS[device] = CUDA.Stream(device)
    return _STREAMS[device]
