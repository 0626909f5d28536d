"""A sparse autoencoder or transcoder on disk: its settings, and its tensors, which are read where they are wanted."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import UserError
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.places import PICKLED, Place

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Coder:
    """A sparse autoencoder or transcoder on disk."""

    weights: Path
    """The file with its tensors."""
    inputs: int
    """D"""
    width: int
    """U"""
    place: Place | None
    """What it reads as the files say; None where they do not."""
    reconstructs: bool
    """Whether it gives back what it reads, as an autoencoder does and a transcoder does not."""
    load: Callable[[torch.device], Encoder]
    """Reads the encoder."""
    reads: Callable[[], torch.Tensor]
    """(U, D) encoder vectors."""
    writes: Callable[[], torch.Tensor]
    """(U, D') decoder vectors, which write D' dimensions."""


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file. Raises UserError: no such file, or something else in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a sparse coder of this format has it beside its weights") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); copy or download it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, expected an object with the settings of the coder")
    return found


def positive(config: dict[str, Any], key: str, path: Path) -> int:
    """A setting that must be a whole number above 0; raises UserError where it is not."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != int(value):
        raise UserError(f"{path}: {key} = {value!r}, expected a whole number from 1 on; correct the file")
    return int(value)


class TensorFile:
    """A .safetensors or .npz file whose tensors are read one by one."""

    def __init__(self, path: Path) -> None:
        """Reads the header alone. Raises UserError: no such file, or not one of these formats."""
        if path.suffix in PICKLED:
            raise UserError(f"{path} is a pickle, which can run code; save its tensors as .safetensors or .npz")
        self.path = path
        try:
            self.shapes: Mapping[str, Shape] = _npz_shapes(path) if path.suffix == ".npz" else _safe_shapes(path)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; check the path of the sparse coder") from None
        except (SafetensorError, zipfile.BadZipFile, ValueError) as error:
            raise UserError(f"{path} cannot be read as {path.suffix} ({error}); copy or download it again") from None

    def require(self, expected: Mapping[str, Shape]) -> None:
        """Raises UserError where a tensor is missing or has another shape; -1 stands for any size."""
        missing = [name for name in expected if name not in self.shapes]
        if missing:
            raise UserError(
                f"{self.path} lacks {', '.join(missing)}; it holds {', '.join(sorted(self.shapes)) or 'nothing'}. "
                "Check that the file is complete and `format` is right"
            )
        for name, shape in expected.items():
            found = self.shapes[name]
            if len(found) != len(shape) or any(want not in (-1, size) for want, size in zip(shape, found, strict=True)):
                raise UserError(
                    f"{self.path}: {name} has the shape {list(found)}, expected {list(shape)} by the other tensors and "
                    "the configuration beside it; check that the files belong together"
                )

    def load(self, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """A tensor as float32."""
        if self.path.suffix == ".npz":
            with np.load(self.path, allow_pickle=False) as file:
                return torch.from_numpy(file[name].astype(np.float32)).to(device)
        with safe_open(self.path, framework="pt", device=str(device)) as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor.float()


def _safe_shapes(path: Path) -> dict[str, Shape]:
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _npz_shapes(path: Path) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as file:
                read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject:
                raise ValueError(f"{entry} holds Python objects")
            shapes[entry.removesuffix(".npy")] = shape
    return shapes
