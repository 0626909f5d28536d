"""What the files of a sparse coder say, before its weights are read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.places import Place


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
    """An object from a JSON file.

    Raises:
        UserError: no such file, or something else in it.
    """
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
