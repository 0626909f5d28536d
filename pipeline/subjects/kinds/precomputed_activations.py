"""A folder of activations as a source of them: for each sequence of the corpus, the row that it came from."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.kinds.precomputed_files import ActivationFile, activation_files, units_of_files
from pipeline.subjects.module_kinds import precomputed_folder

Rows = list[tuple[ActivationFile, int]]
"""For each sequence of a batch, its file and its row there."""
Places = Sequence[tuple[str, int]]
"""By seq_id, the name of the file that a sequence of the corpus came from, and its row there."""

DOC_ID = re.compile(r"(?P<file>.+\.safetensors):(?P<row>[0-9]+)")


def corpus_places(tables: Tables) -> Places:
    """Where the sequences came from, by the corpus's doc_id, `FILE:ROW`. Raises UserError: it was not made from such files."""
    batches = tables.batches(CORPUS, columns=["doc_id"])  # in the order of the seq_ids
    matches = (DOC_ID.fullmatch(doc_id) for batch in batches for doc_id in batch.column(0).to_pylist())
    places = [match and (sys.intern(match["file"]), int(match["row"])) for match in matches]
    found = [place for place in places if place]
    if not found or len(found) < len(places):
        raise UserError(
            "the corpus was not made from the files of subject.precomputed; "
            'write corpus.source = "precomputed:NAME" and run the stage corpus'
        )
    return found


class PrecomputedActivations:
    """Folders of activations over the same sequences; see `ActivationSource`.

    Only the rows of a batch are read. `places` is called for the first batch.
    """

    def __init__(self, folders: Mapping[str, Path], places: Callable[[], Places]) -> None:
        """folders: by module, `precomputed:NAME`. Raises UserError: a folder's files cannot be read, or do not fit together."""
        files = {module: activation_files(folder) for module, folder in folders.items()}
        self._files = {module: {file.path.name: file for file in held} for module, held in files.items()}
        self.modules: Mapping[str, ModuleUnits] = {module: units_of_files(held) for module, held in files.items()}
        self._find_places = places

    @cached_property
    def _places(self) -> Places:
        return self._find_places()

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """Read the rows of a batch's sequences. Raises UserError: the tokens of a sequence are not those of its row."""
        for module, units in self.modules.items():
            rows = [self._row(module, seq_id) for seq_id in batch.seq_ids.tolist()]
            for (file, row), ids, length in zip(rows, batch.token_ids, batch.lengths.tolist(), strict=True):
                if not np.array_equal(file.token_ids(row, row + 1)[0, : int(file.lengths[row])], ids[:length]):
                    raise UserError(
                        f"{module}: row {row} of {file.path} has other tokens than its sequence in the corpus; activations "
                        "from files are there for the very sequences that they were made with"
                    )
            receive(module, _sparse(rows, batch, units) if units.sparse else _dense(rows, batch, units))

    def _row(self, module: str, seq_id: int) -> tuple[ActivationFile, int]:
        if seq_id >= len(self._places):
            raise UserError(f"{module}: sequence {seq_id} is not in the corpus, which has {len(self._places)}")
        name, row = self._places[seq_id]
        file = self._files[module].get(name)
        if file is None or row >= file.rows:
            raise UserError(
                f"{module} has no row {row} of {name}, which is in the corpus; "
                "several folders of activations hold the same sequences, file for file and row for row"
            )
        return file, row


def _dense(rows: Rows, batch: TokenBatch, units: ModuleUnits) -> torch.Tensor:
    """(B, T, U) float32, zero in the padding."""
    activations = torch.zeros(*batch.token_ids.shape, units.width)
    for place, (file, row) in enumerate(rows):
        values = file.dense(row)
        activations[place, : len(values)] = values
    return activations


def _sparse(rows: Rows, batch: TokenBatch, units: ModuleUnits) -> SparseActivations:
    """Triples of a batch, by position and unit."""
    parts = [file.sparse(row, place * batch.token_ids.shape[1]) for place, (file, row) in enumerate(rows)]
    positions, indices, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    folder = rows[0][0].path.parent
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < units.width:
        raise UserError(
            f"{folder} holds units {int(indices.min())} to {int(indices.max())}, but its metadata says "
            f'"width" = {units.width}; expected units 0 to {units.width - 1}'
        )
    keys, order = (positions * units.width + indices).sort()
    if (keys.diff() == 0).any():
        raise UserError(f"{folder} holds a unit twice at one position; expected each pair once")
    return SparseActivations((*batch.token_ids.shape, units.width), positions[order], indices[order], values[order])


def units_of(config: RunConfig, module: str) -> ModuleUnits:
    """See `OtherKind`."""
    return units_of_files(activation_files(precomputed_folder(config, module)))


def open_sources(config: RunConfig, modules: Sequence[str]) -> list[PrecomputedActivations]:
    """See `OtherKind`."""
    folders = {module: precomputed_folder(config, module) for module in modules}
    return [PrecomputedActivations(folders, lambda: corpus_places(Tables(config.root)))]


def check(config: RunConfig, module: str) -> None:
    """See `OtherKind`."""
    units_of(config, module)
