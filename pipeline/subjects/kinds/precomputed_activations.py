"""A folder of activations as a source of them: for each sequence of the corpus, the row that it came from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.kinds.precomputed_files import ActivationFile, activation_files, units_of_files
from pipeline.subjects.module_kinds import precomputed_folder

Ints = npt.NDArray[np.int64]
Rows = list[tuple[ActivationFile, int]]
"""For each sequence of a batch, its file and its row there."""


DOC_ID = r"^(?P<file>.+\.safetensors):(?P<row>[0-9]+)$"
NOT_PRECOMPUTED = (
    "the corpus was not made from the files of subject.precomputed; "
    'write corpus.source = "precomputed:NAME" and run the stage corpus'
)


@dataclass(frozen=True)
class Places:
    """Where each sequence of the corpus came from."""

    names: list[str]
    """Names of the files."""
    file: Ints
    """(S,) numbers in `names`, by seq_id."""
    row: Ints
    """(S,) rows in that file."""


def corpus_places(tables: Tables) -> Places:
    """Where the sequences came from, by the corpus's doc_id, `FILE:ROW`. Raises UserError: the corpus was not made from such files."""
    numbers: dict[str, int] = {}
    parts = []
    for batch in tables.batches(CORPUS, columns=["doc_id"]):  # in the order of the seq_ids
        found = batch.to_pandas()["doc_id"].str.extract(DOC_ID)
        if found.isna().to_numpy().any():
            raise UserError(NOT_PRECOMPUTED)
        files = [numbers.setdefault(name, len(numbers)) for name in found["file"]]
        parts.append(np.stack([np.asarray(files, np.int64), found["row"].to_numpy(np.int64)]))
    if not numbers:
        raise UserError(NOT_PRECOMPUTED)
    return Places(list(numbers), *np.concatenate(parts, axis=1))


class PrecomputedActivations:
    """Folders of activations over the same sequences; see `ActivationSource` and `own.py`.

    Only the rows of a batch are read. `places` is called for the first batch.
    """

    def __init__(self, folders: Mapping[str, Path], places: Callable[[], Places]) -> None:
        """folders: by module, `precomputed:NAME`. Raises UserError: a folder's files cannot be read, or do not fit together."""
        self._files = {module: activation_files(folder) for module, folder in folders.items()}
        self._by_name = {module: {file.path.name: file for file in files} for module, files in self._files.items()}
        self.modules: Mapping[str, ModuleUnits] = {
            module: units_of_files(files) for module, files in self._files.items()
        }
        self._find_places = places
        self._places: Places | None = None
        self._ends: dict[Path, Ints] = {}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """Read the rows of a batch's sequences. Raises UserError: the tokens of a sequence are not those of its row."""
        for module, units in self.modules.items():
            rows = [self._row(module, seq_id) for seq_id in batch.seq_ids.tolist()]
            self._refuse_other_tokens(module, rows, batch)
            if units.sparse:
                receive(module, self._sparse(rows, batch, units))
            else:
                receive(module, _dense(rows, batch, units))

    def _row(self, module: str, seq_id: int) -> tuple[ActivationFile, int]:
        if self._places is None:
            self._places = self._find_places()
        if seq_id >= len(self._places.file):
            raise UserError(f"{module}: sequence {seq_id} is not in the corpus, which has {len(self._places.file)}")
        name, row = self._places.names[self._places.file[seq_id]], int(self._places.row[seq_id])
        file = self._by_name[module].get(name)
        if file is None or row >= file.rows:
            raise UserError(
                f"{module} has no row {row} of {name}, which is in the corpus; "
                "several folders of activations hold the same sequences, file for file and row for row"
            )
        return file, row

    def _refuse_other_tokens(self, module: str, rows: Rows, batch: TokenBatch) -> None:
        for (file, row), ids, length in zip(rows, batch.token_ids, batch.lengths.tolist(), strict=True):
            known = file.token_ids(row, row + 1)[0, : int(file.lengths[row])]
            if not np.array_equal(known, ids[:length]):
                raise UserError(
                    f"{module}: row {row} of {file.path} has other tokens than its sequence in the corpus; activations "
                    "from files are there for the very sequences that they were made with"
                )

    def _sparse(self, rows: Rows, batch: TokenBatch, units: ModuleUnits) -> SparseActivations:
        """Triples of a batch, by position and unit."""
        width = batch.token_ids.shape[1]
        parts = [
            self._sparse_row(file, row, place * width, length)
            for place, ((file, row), length) in enumerate(zip(rows, batch.lengths.tolist(), strict=True))
        ]
        positions, indices, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < units.width:
            raise UserError(
                f"{rows[0][0].path.parent} holds units {int(indices.min())} to {int(indices.max())}, but its metadata says "
                f'"width" = {units.width}; expected units 0 to {units.width - 1}'
            )
        keys, order = (positions * units.width + indices).sort()
        if (keys.diff() == 0).any():
            raise UserError(f"{rows[0][0].path.parent} holds a unit twice at one position; expected each pair once")
        return SparseActivations((*batch.token_ids.shape, units.width), positions[order], indices[order], values[order])

    def _sparse_row(
        self, file: ActivationFile, row: int, first: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The triples of a row, its positions counted from `first` on."""
        if file.path not in self._ends:
            self._ends[file.path] = file.row_ends()
        start, stop = self._ends[file.path][row : row + 2].tolist()
        positions, units, values = file.sparse(start, stop)
        columns = positions - row * file.columns
        kept = columns < length
        return columns[kept] + first, units[kept], values[kept]


def _dense(rows: Rows, batch: TokenBatch, units: ModuleUnits) -> torch.Tensor:
    """(B, T, U) float32, zero in the padding."""
    activations = torch.zeros(*batch.token_ids.shape, units.width)
    for place, (file, row) in enumerate(rows):
        values = file.dense(row)
        activations[place, : len(values)] = values
    return activations


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
