"""What identifies the things beside the model that units are read from: files by content, functions by source.

Imports neither torch nor anything of the user's, as fingerprints are worked out for `status` and `query` too.
"""

import importlib
import os
import re
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from pipeline.config import BlackBox, Directions, SparseCoder
from pipeline.config.section import DEVICES
from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import content_hash, files_hash, resolve_model
from pipeline.subjects.saes.places import place_by_path

MODELS = {"embedder", "model"}
"""Arguments of a factory that name a model."""
SUFFIXES = {".json", ".npy", ".npz", ".safetensors"}
"""Endings of the files in a folder that say what its units are."""


def file_identity(place: str, entry: Directions | SparseCoder, layer: int) -> dict[str, Any]:
    """The settings of an entry, and a hash of the file or the folder at its path; of a folder, the files that say what its units are.

    Args:
        place: the setting that describes the entry, for messages.
        layer: the number that stands for {layer} in the path.
    """
    path = Path(entry.path.replace("{layer}", str(layer))).expanduser()
    if not path.exists():
        raise UserError(f"{place}.path = {entry.path!r}: there is no {path}; correct the path, or put the files there")
    if path.is_dir():
        content = files_hash(path, sorted(file for file in path.iterdir() if file.suffix in SUFFIXES))
    else:
        beside = sorted(path.parent.glob("*.json")) if isinstance(entry, SparseCoder) else []
        content = files_hash(path.parent, [path, *beside])
    return entry.model_dump(exclude={"path"}) | {"content": content}


def coder_identity(place: str, entry: SparseCoder, layer: int) -> dict[str, Any]:
    """The same of a sparse coder, with the layer and the place that it belongs to where its path alone tells them."""
    found = file_identity(place, entry, layer)
    where = place_by_path(entry, layer)
    return found | {"place": None if where is None else [where.layer, where.reads, where.module]}


def folder_identity(place: str, entry: str, _: int) -> dict[str, Any]:
    """A hash of the names and contents of the files of a folder with activations. Raises UserError: there are none."""
    folder = Path(entry).expanduser()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{place} = {str(folder)!r} holds no .safetensors files; "
            "give a folder that write_activations has filled (see outputs/README.md)"
        )
    return {"content": files_hash(folder, files)}


def function_identity(_: str, entry: BlackBox, __: int) -> dict[str, Any]:
    """The settings of a black box that can change its values, and a hash of the file that its function is in."""
    file = source_file(entry.call)
    settings = entry.model_dump(exclude={"batch_size", "timeout", "arguments"})
    if entry.arguments is not None:
        arguments = dict(entry.arguments)
        if re.match(DEVICES, str(arguments.get("device"))):
            del arguments["device"]  # where something runs changes no row
        settings["arguments"] = _argument("", arguments)
    return settings | {"source": None if file is None else content_hash(file)}


def source_file(call: str) -> Path | None:
    """The file that a black box's module is in, found without importing it; None where it is in no file of its own.

    Args:
        call: `package.module:function`; the working directory is looked in first.
    """
    importlib.invalidate_caches()
    places: list[str] | None = [os.getcwd(), *sys.path]
    spec = None
    parts = call.partition(":")[0].split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None


def _argument(name: str, value: Any) -> Any:
    """What an argument of a factory is known by: a file by its content, a model by its revision, all else by itself."""
    if isinstance(value, Mapping):
        return {key: _argument(key, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_argument("", part) for part in value]
    if not isinstance(value, str):
        return value
    if name in MODELS:
        return {"revision": resolve_model(value).revision}
    path = Path(value).expanduser()
    return {"content": content_hash(path)} if path.suffix and path.is_file() else value
