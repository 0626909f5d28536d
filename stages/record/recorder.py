"""Takes batches of activations in, and gives the partial tables out."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import Record
from stages.record.partials import (
    PARTIALS,
    exemplar_rows,
    token_rows,
    uniform_rows,
    unit_rows,
)
from stages.record.selection import uniform_ids
from stages.record.sums import Accumulator, Batch, make_batch
from stages.record.tokens import TokenTable

Backend = Literal["auto", "numba", "torch"]


class Recorder:
    """The partial evidence of all units of some modules, over any part of the corpus.

    Call `begin` for a batch, then `add` for each module, and in the end `tables`. Memory is bounded by units x kept
    sequences x tokens, and by `record.token_memory_mb`.

    Args:
        widths: units of each module.
        config: what is kept.
        tokens: the tokens whose mean activation is wanted.
        seq_len: tokens of the longest sequence.
        backend: `torch` keeps the state on the activations' device, `numba` on the CPU; `auto` is torch on CUDA.
    """

    def __init__(
        self, widths: Mapping[str, int], config: Record, tokens: TokenTable, seq_len: int, backend: Backend = "auto"
    ) -> None:
        self.widths = dict(widths)
        self.config = config
        self.tokens = tokens
        self.seq_len = seq_len
        self.backend = backend
        self._sums: dict[str, Accumulator] = {}
        self._uniform_ids = set(uniform_ids(config).tolist())
        self._uniform: dict[str, dict[int, npt.NDArray[np.float32]]] = {name: {} for name in self.widths}
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
        self._batch = make_batch(token_ids, lengths, seq_ids, self.config, self.tokens)
        self._lengths.update(zip(self._batch.seq_ids.tolist(), self._batch.lengths.tolist(), strict=True))
        self._occurrences[self._batch.token_rows] += np.diff(self._batch.starts)

    def add(self, module: str, activations: Any) -> None:
        """Take in the (B, T, U) torch tensor of a module's activations on the current batch."""
        assert self._batch is not None, "begin() announces a batch first"
        if module not in self._sums:
            self._sums[module] = self._accumulator(module, activations)
        self._sums[module].add(activations, self._batch)
        for b, seq_id in enumerate(self._batch.seq_ids.tolist()):
            if seq_id in self._uniform_ids:
                rows = activations[b, : int(self._batch.lengths[b])].detach().float()
                self._uniform[module][seq_id] = rows.cpu().numpy().copy()

    def tables(self) -> dict[str, Iterator[pa.Table]]:
        """The rows of each partial table by its name, sorted by module (as given) and index.

        They are made as they are taken, some units at a time, and take memory for those alone.
        """
        return {table.name: self._pieces(table.name) for table in PARTIALS}

    def _pieces(self, table: str) -> Iterator[pa.Table]:
        for module, accumulator in self._sums.items():
            if table == "partial_units":
                yield unit_rows(module, accumulator.sums(), self.tokens.min_count)
            elif table == "partial_tokens":
                yield from token_rows(module, accumulator.sums(), self.tokens, self._occurrences)
            elif table == "partial_uniform":
                yield from uniform_rows(module, accumulator, self.widths[module])
            else:
                yield from exemplar_rows(module, accumulator.sums(), self._lengths)

    def _accumulator(self, module: str, activations: Any) -> Accumulator:
        shape = (self.widths[module], self.seq_len, len(self.tokens.token_ids), self.config)
        backend = self.backend
        if backend == "auto":
            backend = "torch" if activations.device.type == "cuda" else "numba"
        if backend == "numba":
            from stages.record.numba_sums import NumbaSums

            return NumbaSums(*shape)
        from stages.record.torch_sums import TorchSums

        return TorchSums(*shape, device=activations.device)
