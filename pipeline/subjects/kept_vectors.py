"""Embeddings of long lists of texts, kept in the user's cache folder so that other processes need not work them out again."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.storage.shards import atomic_path
from pipeline.subjects.loading.cache_folder import cache_folder

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

RECIPE = 2
"""Raise it whenever embeddings are worked out otherwise, so that older files are not used."""
NAME = "vectors"

Vectors = npt.NDArray[np.float32]


def kept_vectors(embedder: "Embedder", texts: Sequence[str]) -> Vectors:
    """(N, D), as `embedder.encode(texts)`, which is worked out at the first call for this embedder and these texts.

    A file that is cut or damaged is made again, and where the cache folder cannot be written the texts are embedded every time.
    """
    file = cache_folder() / "vectors" / f"{_key(embedder, texts)}.safetensors"
    found = _read(file, (len(texts), embedder.width))
    if found is None:
        found = embedder.encode(texts)
        _write(file, found)
    return found


def _key(embedder: "Embedder", texts: Sequence[str]) -> str:
    """Of everything that the last bit of a vector can depend on."""
    import torch

    parts = [str(RECIPE), torch.__version__, embedder.device.type, embedder.revision, *texts]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _read(file: Path, shape: tuple[int, int]) -> Vectors | None:
    """What a file holds; None where it is not there, or is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            vectors: Vectors = stored.get_tensor(NAME)
            written = (stored.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return vectors if vectors.shape == shape and written == _sha256(vectors) else None


def _write(file: Path, vectors: Vectors) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with contextlib.suppress(OSError, UserError, SafetensorError), atomic_path(file) as temporary:
        save_file({NAME: vectors}, temporary, metadata={"sha256": _sha256(vectors)})


def _sha256(vectors: Vectors) -> str:
    return hashlib.sha256(vectors.tobytes()).hexdigest()
