"""What all accumulators on a device have: copies of a batch there, statistics of units, and copies of results to the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.evidence import SPLITS
from stages.record.backends.contract import TopK, UnitSums
from stages.record.recorded_batch import Batch
from stages.record.sequences import uniform_ids
from stages.record.unit_statistics import BINS
from stages.settings import Record

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


class DeviceState:
    """Statistics of U units, and the uniformly kept sequences."""

    def __init__(self, width: int, covered: int, config: Record, device: torch.device) -> None:
        self.config, self.device = config, device
        self.n_tokens = 0

        def full(value: float, *shape: int, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        self.minimum = full(np.inf, width, dtype=torch.float32)
        self.maximum = full(-np.inf, width, dtype=torch.float32)
        self.above = full(0, width, dtype=torch.int64)
        self.nonfinite = full(0, width, dtype=torch.int64)
        self.power_sums = full(0, 4, 2, width, dtype=torch.float64)
        self.histogram = full(0, width, BINS, dtype=torch.int32)
        self.token_sums = full(0, covered, width, dtype=torch.float64)
        self._uniform_ids = frozenset(uniform_ids(config).tolist())
        self._uniform: dict[int, Tensor] = {}
        """(T, U) activations by seq_id, in the type in which they came."""

    def keep_uniform(self, x: Tensor, batch: Batch, counted: Tensor) -> None:
        """Copy the sequences of a (B, T, U) batch that are kept for every unit; counted: (B, T)."""
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self._uniform_ids:
                part = slice(0, int(batch.lengths[b]))
                self._uniform[seq_id] = x[b, part].masked_fill(counted[b, part, None] == 0, torch.nan)

    def unit_sums(self, top: dict[str, TopK]) -> UnitSums:
        """The state with the top-k by polarity."""
        names = ("minimum", "maximum", "above", "power_sums", "token_sums", "nonfinite", "histogram")
        found = {name: getattr(self, name).cpu().numpy() for name in names}
        nonfinite, histogram = found.pop("nonfinite"), found.pop("histogram").astype(np.int64)
        return UnitSums(self.n_tokens, nonfinite, histogram=histogram, top=top, **found)

    def uniform(self) -> Mapping[int, npt.NDArray[np.float32]]:
        return {seq_id: rows.float().cpu().numpy().T for seq_id, rows in self._uniform.items()}


@dataclass(frozen=True)
class DeviceVectors:
    """(U, K, T) activations on a device; a slice of units is copied to the CPU when it is asked for. See Vectors."""

    values: Tensor

    def __getitem__(self, units: slice, /) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self.values[units].cpu().numpy()
        return found
