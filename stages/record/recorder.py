"""Takes batches of activations in, and gives the partial tables out."""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import Record
from pipeline.subjects.activations import ModuleUnits
from stages.record.partials import (
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNITS,
    exemplar_rows,
    token_rows,
    unit_rows,
)
from stages.record.sums import Accumulator, Batch, make_batch
from stages.record.tokens import TokenTable

UNITS_AT_ONCE = 1024
"""Units whose exemplars are put into rows at once, which takes memory for a copy of them."""
Backend = Literal["auto", "numba", "torch"]


class Recorder:
    """The partial evidence of all units of some modules, over any part of the corpus.

    Call `begin` for a batch, then `add` for each module, and in the end `tables`. Memory is bounded by units x kept
    sequences x tokens, and by `record.token_memory_mb`.

    Args:
        modules: the units of each module.
        config: what is kept.
        tokens: the tokens whose mean activation is wanted.
        seq_len: tokens of the longest sequence.
        special_ids: the tokenizer's special tokens, left out of everything where `record.skip_special` is on.
        backend: `torch` keeps the state on the activations' device, `numba` on the CPU; `auto` is torch on CUDA.
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
        if module not in self._sums:
            self._sums[module] = self._accumulator(module, activations)
        self._sums[module].add(activations, self._batch)

    def tables(self) -> dict[str, pa.Table]:
        """PARTIAL_UNITS, PARTIAL_EXEMPLARS and PARTIAL_TOKENS by name, sorted by module (as given) and index."""
        units, exemplars, tokens = [], [], []
        for module, accumulator in self._sums.items():
            sums, uniform, width = accumulator.sums(), accumulator.uniform(), self.modules[module].width
            units.append(unit_rows(module, sums, self.tokens.min_count))
            for start in range(0, width, UNITS_AT_ONCE):
                part = range(start, min(start + UNITS_AT_ONCE, width))
                exemplars.append(exemplar_rows(module, sums, uniform, self._lengths, part))
            tokens += token_rows(module, sums, self.tokens, self._occurrences)
        found = {PARTIAL_UNITS: units, PARTIAL_EXEMPLARS: exemplars, PARTIAL_TOKENS: tokens}
        return {table.name: pa.concat_tables([table.schema.empty_table(), *rows]) for table, rows in found.items()}

    def _accumulator(self, module: str, activations: Any) -> Accumulator:
        units = self.modules[module]
        shape = (units.width, self.seq_len, len(self.tokens.token_ids), self.config, units.signed)
        if units.sparse:
            sparse: Accumulator = import_module("stages.record.sparse_sums").SparseSums(*shape)
            return sparse
        backend = self.backend
        if backend == "auto":
            backend = "torch" if activations.device.type == "cuda" else "numba"
        if backend == "numba":
            from stages.record.numba_sums import NumbaSums

            return NumbaSums(*shape)
        from stages.record.torch_sums import TorchSums

        return TorchSums(*shape, device=activations.device)
