"""What a run file's modules are read from besides the model, and what identifies it: files by content, functions by source.

Imports neither torch nor anything of the user's, as fingerprints are worked out for `status` and `query` too.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import BlackBox, RunConfig, SparseCoder
from pipeline.config.section import DEVICES
from pipeline.errors import UserError, nearest
from pipeline.subjects.loading.cache_folder import content_hash
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.saes.formats import place_by_path

PRECOMPUTED = "precomputed:"
BLACK_BOX = "black_box:"
FROM_FILES = re.compile(r"layers\.(?P<layer>\d+)\.(?P<kind>sae|directions):(?P<name>.+)")
SETTINGS = {"sae": "saes", "directions": "directions"}
"""Where the run file says what a kind of module is read from."""
MODELS = {"embedder", "model"}
"""Arguments of a factory that name a model."""
SUFFIXES = {".json", ".npy", ".npz", ".safetensors"}
"""Endings of the files in a folder that say what its units are."""

Entry = TypeVar("Entry")


def needs_model(modules: Iterable[str]) -> bool:
    """Whether any of the modules is part of the subject's model, and not a function or a folder."""
    return any(not name.startswith((PRECOMPUTED, BLACK_BOX)) for name in modules)


def precomputed_folder(config: RunConfig, module: str) -> Path:
    """The folder that `precomputed:NAME` stands for.

    Raises:
        UserError: the run file names no such folder.
    """
    return Path(
        _entry(config.subject.precomputed, "precomputed", module, module.removeprefix(PRECOMPUTED))
    ).expanduser()


def black_box(config: RunConfig, module: str) -> BlackBox:
    """The settings that `black_box:NAME` stands for.

    Raises:
        UserError: the run file has none of that name.
    """
    return _entry(config.subject.black_boxes, "black_boxes", module, module.removeprefix(BLACK_BOX))


def source_identities(config: RunConfig) -> dict[str, Any]:
    """For each module that is not read from the model's own weights alone: whatever can change its activations.

    Only what a module names is looked at, so that a further entry in the run file changes nothing. Where files lie makes no
    difference, but for sparse coders whose folders tell what they read. Hashes of files are remembered, so that only the first
    call reads whole ones.

    Raises:
        UserError: a module names something that the run file does not describe, or that is not there.
    """
    found = {name: _identity(config, name) for name in config.subject.modules}
    return {name: identity for name, identity in found.items() if identity}


def precomputed_identity(config: RunConfig, module: str) -> str:
    """SHA-256 over the names and contents of the files of a folder with activations.

    Raises:
        UserError: there is no such folder, or no file in it.
    """
    folder = precomputed_folder(config, module)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"subject.precomputed.{module.removeprefix(PRECOMPUTED)} = {str(folder)!r} holds no .safetensors files; "
            "give a folder that write_activations has filled (see outputs/README.md)"
        )
    return _hash(folder, files)


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


def _identity(config: RunConfig, module: str) -> dict[str, Any]:
    if module.startswith(PRECOMPUTED):
        return {"content": precomputed_identity(config, module)}
    if module.startswith(BLACK_BOX):
        box = black_box(config, module)
        file = source_file(box.call)
        settings = box.model_dump(exclude={"batch_size", "timeout", "arguments"})
        made = {} if box.arguments is None else {"arguments": _argument("", _without_device(box.arguments))}
        return settings | made | {"source": None if file is None else content_hash(file)}
    match = FROM_FILES.fullmatch(module)
    if match is None:
        return {}
    entries: Mapping[str, Any] = getattr(config.subject, SETTINGS[match["kind"]])
    entry = _entry(entries, SETTINGS[match["kind"]], module, match["name"])
    settings = entry.model_dump(exclude={"path"})
    found = settings | {"content": _content(f"{SETTINGS[match['kind']]}.{match['name']}", entry.path, match["layer"])}
    return found | {"place": _place(entry, int(match["layer"]))} if match["kind"] == "sae" else found


def _place(coder: SparseCoder, layer: int) -> list[Any] | None:
    """Layer and place that a sparse coder belongs to, where its path alone tells them."""
    place = place_by_path(coder, layer)
    return None if place is None else [place.layer, place.reads, place.module]


def _without_device(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without the one that says where something runs, which changes no row."""
    device = str(arguments.get("device"))
    return {name: value for name, value in arguments.items() if name != "device" or not re.match(DEVICES, device)}


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


def _content(setting: str, path: str, layer: str) -> str:
    """Hash of a folder's files; or of a file, with the settings of a sparse coder beside it."""
    place = Path(path.replace("{layer}", layer)).expanduser()
    if not place.exists():
        raise UserError(
            f"subject.{setting}.path = {path!r}: there is no {place}; correct the path, or put the files there"
        )
    if place.is_dir():
        return _hash(place, sorted(file for file in place.iterdir() if file.suffix in SUFFIXES))
    beside = sorted(place.parent.glob("*.json")) if setting.startswith("saes.") else []
    return _hash(place.parent, [place, *beside])


def _hash(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content_hash(file)}\n".encode())
    return digest.hexdigest()


def _entry(entries: Mapping[str, Entry], section: str, module: str, name: str) -> Entry:
    if name not in entries:
        have = nearest(name, sorted(entries)) if entries else f"the run file has no [subject.{section}]"
        raise UserError(f"{module!r} names {name!r}, which subject.{section} does not describe; {have}")
    return entries[name]
