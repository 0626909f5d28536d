"""The recorder: activations of batches go in, partial tables come out."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.subjects.activations import ModuleUnits
from stages.record.backends import Backend, open_sums
from stages.record.backends.contract import Accumulator, UnitSums
from stages.record.partial_tables import (
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNIFORM,
    PARTIAL_UNITS,
    exemplar_rows,
    token_rows,
    uniform_rows,
    unit_rows,
)
from stages.record.recorded_batch import Batch, make_batch
from stages.record.token_table import TokenTable
from stages.settings import Record


class Recorder:
    """The partial evidence of all units of some modules, over any part of the corpus.

    Call `begin` for a batch, then `add` for each module, and in the end `tables`. Memory is bounded (see record_sizes):

        units x (2 polarities x kept sequences + uniformly kept sequences) x tokens x 4 bytes,
        covered tokens x units x 8 bytes, at most `record.token_memory_mb`,
        units x 1 to 2 KB for the statistics.

    Args:
        modules: the units of each module.
        config: what is kept.
        tokens: the tokens whose mean activation is wanted.
        seq_len: tokens of the longest sequence.
        special_ids: the tokenizer's special tokens, left out of everything where `record.skip_special` is on.
        backend: `triton` and `torch` keep the state on the activations' device, `numba` on the CPU; `auto` chooses for
            each module by where its activations are.
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
        self.accumulators: dict[str, Accumulator] = {}
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
        """Add a module's activations on the current batch: a (B, T, U) torch tensor, or SparseActivations."""
        assert self._batch is not None, "begin() announces a batch first"
        if module not in self.accumulators:
            units, tokens = self.modules[module], len(self.tokens.token_ids)
            shape = (units.width, self.seq_len, tokens, self.config, units.signed)
            device = None if units.sparse else activations.device
            self.accumulators[module] = open_sums(self.backend, device, *shape, sparse=units.sparse)
        self.accumulators[module].add(activations, self._batch)

    def sums(self) -> dict[str, UnitSums]:
        """The state of each module."""
        return {module: self.accumulators[module].sums() for module in self.modules if module in self.accumulators}

    def tables(self) -> dict[str, Iterator[pa.Table]]:
        """The rows of each partial table by its name, sorted by module (as given) and index.

        They are made while they are iterated over, some units at a time, so that memory holds only those.
        """
        made: dict[str, Callable[[str, Accumulator], Iterator[pa.Table]]] = {
            PARTIAL_UNITS.name: lambda module, state: iter([unit_rows(module, state.sums(), self.tokens.min_count)]),
            PARTIAL_TOKENS.name: lambda module, state: token_rows(module, state.sums(), self.tokens, self._occurrences),
            PARTIAL_UNIFORM.name: lambda module, state: uniform_rows(
                module, state.uniform(), self.modules[module].width
            ),
            PARTIAL_EXEMPLARS.name: lambda module, state: exemplar_rows(module, state.sums(), self._lengths),
        }
        return {name: self._pieces(make) for name, make in made.items()}

    def _pieces(self, make: Callable[[str, Accumulator], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        for module in self.modules:
            if module in self.accumulators:
                yield from make(module, self.accumulators[module])
