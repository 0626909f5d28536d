"""Activations that another program has made: the files it writes, and how they are read.

A folder holds .safetensors files, each with N sequences of T tokens and the activations of U units on them:

    token_ids    (N, T) any integer type
    lengths      (N,) any integer type, optional: real tokens of each sequence, T without it
    activations  (N, T, U) any type of real numbers

or, where most activations are zero, instead of `activations` the M others:

    positions    (M,) int64 places in the flattened (N * T), rising
    units        (M,) any integer type
    values       (M,) any type of real numbers
    metadata     "width" = U

Metadata "signed" = "false" says that no activation of the file is negative. What stands beyond a sequence's length is not
looked at. `write_activations` writes such a file; any other writer of safetensors will do, given contiguous arrays.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_path
from pipeline.subjects.activations import ModuleUnits, SparseActivations

if TYPE_CHECKING:
    import torch

INTEGERS = {"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}
REALS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "I16", "I32", "I64", "U8", "BOOL"}
SPARSE = ("positions", "units", "values")
OPEN_FILES = 64

Ints = npt.NDArray[np.int64]


def write_activations(folder: Path | str, number: int, token_ids: Any, activations: Any, lengths: Any = None) -> Path:
    """Write one file of a folder of activations, for `subject.precomputed` in a run file; written whole or not at all.

    Call it for every few thousand sequences with numbers from 0 on, all with the same units. Several folders may hold
    different units of the same sequences: then file for file and row for row.

    Args:
        folder: made if it is not there.
        number: of the file.
        token_ids: (N, T) integers, numpy or torch, padded on the right with anything.
        activations: (N, T, U) numbers, numpy or torch; or SparseActivations.
        lengths: (N,) real tokens of each sequence; T if not given.

    Returns:
        The file, FOLDER/00003.safetensors for number 3.

    Raises:
        UserError: the arrays do not fit together.
    """
    import torch
    from safetensors.torch import save_file

    def tensor(array: Any) -> torch.Tensor:
        return torch.as_tensor(array).detach().cpu().contiguous()

    tensors = {"token_ids": tensor(token_ids)}
    if isinstance(activations, SparseActivations):
        tensors |= {name: tensor(getattr(activations, name)) for name in SPARSE}
        values, metadata = tensors["values"], {"width": str(activations.shape[2])}
    else:
        values, metadata = tensor(activations), {}
        tensors["activations"] = values
    if lengths is not None:
        tensors["lengths"] = tensor(lengths).to(torch.int64)
    metadata["signed"] = "true" if bool((values.float() < 0).any()) else "false"
    file = Path(folder) / f"{number:05d}.safetensors"
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata)
        ActivationFile.open(temporary)
    return file


@dataclass(frozen=True)
class ActivationFile:
    """One file; its activations stay on the disk."""

    path: Path
    changed: int
    """When it was, in ns: a file that is replaced is opened anew."""
    rows: int
    """N"""
    columns: int
    """T"""
    units: ModuleUnits
    lengths: Ints = field(repr=False)
    """(N,)"""

    @classmethod
    def open(cls, path: Path) -> "ActivationFile":
        """Read what a file says of itself. Raises UserError: it is no such file."""
        changed = path.stat().st_mtime_ns
        file = _opened(path, "np", changed)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - a file is no dictionary
        shapes = {name: list(one.get_shape()) for name, one in slices.items()}
        metadata = dict(file.metadata() or {})
        sparse = _check_layout(path, shapes, {name: str(one.get_dtype()) for name, one in slices.items()}, metadata)
        rows, columns = shapes["token_ids"]
        width = int(metadata["width"]) if sparse else shapes["activations"][2]
        lengths = np.full(rows, columns, np.int64)
        if "lengths" in shapes:
            lengths = np.asarray(file.get_tensor("lengths")).astype(np.int64)
            if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= columns:
                raise _bad(path, f"lengths from {lengths.min()} to {lengths.max()}", f"0 to {columns}")
        units = ModuleUnits(width, signed=metadata.get("signed") != "false", sparse=sparse)
        return cls(path, changed, rows, columns, units, lengths)

    def token_ids(self, start: int, stop: int) -> Ints:
        """(stop - start, T) token ids of some rows, with what they are padded with."""
        return np.asarray(_opened(self.path, "np", self.changed).get_slice("token_ids")[start:stop]).astype(np.int64)

    def dense(self, row: int) -> "torch.Tensor":
        """(length, U) float32 activations of a row."""
        part = _opened(self.path, "pt", self.changed).get_slice("activations")[row : row + 1]
        found: torch.Tensor = part[0, : int(self.lengths[row])].float()
        return found

    @cached_property
    def row_ends(self) -> Ints:
        """(N + 1,) where the sparse activations of each row start, and the end; reads all positions.

        Raises UserError: positions that do not rise, or lie outside.
        """
        positions = np.asarray(_opened(self.path, "np", self.changed).get_tensor("positions")).astype(np.int64)
        last = self.rows * self.columns - 1
        if len(positions) and (positions[0] < 0 or positions[-1] > last or (np.diff(positions) < 0).any()):
            raise _bad(self.path, "positions that do not rise or lie outside", f"0 to {last}, rising")
        return np.searchsorted(positions, np.arange(self.rows + 1) * self.columns)

    def sparse(self, row: int, first: int) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Positions, counted from `first` on, units and float32 values of the sparse activations of a row."""
        start, stop = self.row_ends[row : row + 2].tolist()
        positions, units, values = (
            _opened(self.path, "pt", self.changed).get_slice(name)[start:stop] for name in SPARSE
        )
        columns = positions.long() - row * self.columns
        kept = columns < int(self.lengths[row])
        return columns[kept] + first, units.long()[kept], values.float()[kept]


def activation_files(folder: Path) -> list[ActivationFile]:
    """The files of a folder, by name. Raises UserError: there are none, one cannot be read, or they do not have the same units."""
    files = [ActivationFile.open(path) for path in sorted(folder.glob("*.safetensors"))]
    if not files:
        raise UserError(f"{folder} holds no .safetensors files; fill it with write_activations (see outputs/README.md)")
    described = [f"{file.units.width} {'sparse' if file.units.sparse else 'dense'} units" for file in files]
    for file, units in zip(files, described, strict=True):
        if units != described[0]:
            raise UserError(
                f"{file.path} has {units} and {files[0].path.name} has {described[0]}; "
                "a folder holds the same units of several sequences: use another folder for other units"
            )
    return files


def units_of_files(files: list[ActivationFile]) -> ModuleUnits:
    """What units a folder's files have; signed where a file does not rule that out."""
    first = files[0].units
    return ModuleUnits(first.width, any(file.units.signed for file in files), first.sparse)


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: Path, framework: str, changed: int) -> Any:  # noqa: ARG001 - a changed file is another one
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no safetensors file that can be read ({error}); write it again") from error


def _check_layout(path: Path, shapes: dict[str, list[int]], types: dict[str, str], metadata: dict[str, str]) -> bool:
    """Whether the activations are sparse. Raises UserError: the arrays are not as described above."""
    sparse = "activations" not in shapes
    needed = ["token_ids", *(SPARSE if sparse else ["activations"])]
    if missing := [name for name in needed if name not in shapes]:
        raise _bad(path, f"{', '.join(shapes)} and no {', '.join(missing)}", "token_ids and activations")
    for name in {*needed, "lengths"} & {*shapes}:
        known = REALS if name in ("activations", "values") else INTEGERS
        if types[name] not in known:
            raise _bad(path, f"{name} of type {types[name]}", f"one of {', '.join(sorted(known))}")
    ids = shapes["token_ids"]
    if len(ids) != 2 or not ids[1]:
        raise _bad(path, f"token_ids of shape {ids}", "(N, T)")
    if shapes.get("lengths", ids[:1]) != ids[:1]:
        raise _bad(path, f"lengths of shape {shapes['lengths']}", f"({ids[0]},), as token_ids have shape {ids}")
    found = [shapes[name] for name in needed[1:]]
    if not sparse and (len(found[0]) != 3 or found[0][:2] != ids or not found[0][2]):
        raise _bad(path, f"activations of shape {found[0]}", f"({ids[0]}, {ids[1]}, U), as token_ids are {ids}")
    if sparse and (not metadata.get("width", "").isdigit() or int(metadata["width"]) < 1):
        raise _bad(path, f'the metadata "width" = {metadata.get("width")!r}', "the number of units")
    if sparse and (found.count(found[0]) < len(SPARSE) or len(found[0]) != 1):
        raise _bad(path, f"arrays of shapes {found}", "(M,) for each of " + ", ".join(SPARSE))
    return sparse


def _bad(path: Path, found: str, expected: str) -> UserError:
    return UserError(f"{path} holds {found}; expected {expected} (the layout is described in outputs/README.md)")
