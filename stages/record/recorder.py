"""Takes batches of activations in, and gives the partial tables out."""

from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.subjects.activations import ModuleUnits
from stages.record.memory import Room
from stages.record.partials import (
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNIFORM,
    PARTIAL_UNITS,
    exemplar_rows,
    token_rows,
    uniform_rows,
    unit_rows,
)
from stages.record.sums import Accumulator, Batch, UnitSums, make_batch
from stages.record.tokens import TokenTable
from stages.settings import Record

Backend = Literal["auto", "numba", "torch", "triton"]


class Recorder:
    """The partial evidence of all units of some modules, over any part of the corpus.

    Call `begin` for a batch, then `add` for each module, and in the end `tables`. Memory is bounded (see record_sizes):

        units x (2 polarities x kept sequences + uniformly kept sequences) x tokens x 4 bytes,
        covered tokens x units x 8 bytes, at most `record.token_memory_mb`,
        units x 2 to 4 KB for the statistics,
        and about as much as the activations of a batch on the widest module (`memory.Room`).

    Args:
        modules: the units of each module.
        config: what is kept.
        tokens: the tokens whose mean activation is wanted.
        seq_len: tokens of the longest sequence.
        special_ids: the tokenizer's special tokens, left out of everything where `record.skip_special` is on.
        backend: `triton` and `torch` keep the state on the activations' device, `numba` on the CPU; `auto` is triton for
            activations on a GPU, torch where triton is missing or finds something else (see `trial`), and numba on a CPU.
    """

    def __init__(
        self,
        modules: Mapping[str, ModuleUnits],
        config: Record,
        tokens: TokenTable,
        seq_len: int,
        special_ids: Collection[int] = frozenset(),
        backend: Backend = "auto",
    ) -> None:
        self.modules = dict(modules)
        self.config = config
        self.tokens = tokens
        self.seq_len = seq_len
        self.special_ids = frozenset(special_ids)
        self.backend = backend
        self._sums: dict[str, Accumulator] = {}
        self._lengths: dict[int, int] = {}
        self._occurrences = np.zeros(len(tokens.token_ids), np.int64)
        self._batch: Batch | None = None
        self._room = Room()
        self._batches: Any = None
        if backend == "numba" or (backend == "auto" and not has_gpu()):
            for module in self.modules:
                self._sums[module] = self._accumulator(module, "numba")

    def begin(self, token_ids: npt.NDArray[Any], lengths: npt.NDArray[Any], seq_ids: npt.NDArray[Any]) -> None:
        """Announce the batch whose activations follow.

        Args:
            token_ids: (B, T) ids, padded on the right with anything.
            lengths: (B,) real tokens of each sequence.
            seq_ids: (B,) numbers of the sequences, none of which was added before.
        """
        self._batch = make_batch(token_ids, lengths, seq_ids, self.config, self.tokens, self.special_ids)
        self._lengths.update(zip(self._batch.seq_ids.tolist(), self._batch.lengths.tolist(), strict=True))
        self._occurrences[self._batch.token_rows] += np.diff(self._batch.starts)

    def add(self, module: str, activations: Any) -> None:
        """Take in a module's activations on the current batch: a (B, T, U) torch tensor, or SparseActivations."""
        assert self._batch is not None, "begin() announces a batch first"
        self._sum(module, activations).add(activations, self._batch)

    def sums(self) -> dict[str, UnitSums]:
        """The state of each module."""
        return {module: accumulator.sums() for module, accumulator in self._sums.items()}

    def tables(self) -> dict[str, Iterator[pa.Table]]:
        """The rows of each partial table by its name, sorted by module (as given) and index.

        They are made as they are taken, some units at a time, and take memory for those alone.
        """
        made = {
            PARTIAL_UNITS: lambda module, state: iter([unit_rows(module, state.sums(), self.tokens.min_count)]),
            PARTIAL_TOKENS: lambda module, state: token_rows(module, state.sums(), self.tokens, self._occurrences),
            PARTIAL_UNIFORM: lambda module, state: uniform_rows(module, state.uniform(), self.modules[module].width),
            PARTIAL_EXEMPLARS: lambda module, state: exemplar_rows(module, state.sums(), self._lengths),
        }
        return {table.name: self._pieces(make) for table, make in made.items()}

    def _pieces(self, make: Callable[[str, Accumulator], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        for module, accumulator in self._sums.items():
            yield from make(module, accumulator)

    def _sum(self, module: str, activations: Any) -> Accumulator:
        if module not in self._sums:
            backend = self.backend if self.backend != "auto" else backend_for(activations.device)
            self._sums[module] = self._accumulator(module, backend, activations)
        return self._sums[module]

    def _accumulator(self, module: str, backend: str, activations: Any = None) -> Accumulator:
        units = self.modules[module]
        shape = (units.width, self.seq_len, len(self.tokens.token_ids), self.config, units.signed)
        if units.sparse:
            sparse: Accumulator = import_module("stages.record.sparse_sums").SparseSums(*shape)
            return sparse
        if backend == "numba":
            from stages.record.numba_sums import NumbaSums

            return NumbaSums(*shape, self._room)
        self._batches = self._batches or import_module("stages.record.device_batch").DeviceBatches()
        name = {"torch": "TorchSums", "triton": "TritonSums"}[backend]
        found: Accumulator = getattr(import_module(f"stages.record.{backend}_sums"), name)(
            *shape, activations.device, self._batches
        )
        return found


def backend_for(device: Any) -> Backend:
    """What is fastest for activations on a torch device, of what gives the right results there."""
    if device.type == "cpu":
        return "numba"
    if device.type == "cuda" and find_spec("triton") and import_module("stages.record.trial").triton_agrees(device):
        return "triton"
    return "torch"


def has_gpu() -> bool:
    """Whether activations could come from one, so that where their sums go has to be seen first."""
    from torch import cuda

    return cuda.is_available()
