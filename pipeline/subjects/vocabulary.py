"""A model's tokens: the text that each stands for, and their vectors in the residual stream.

What a unit writes favours some of these vectors, what it reads answers to some.

Shapes: V tokens, U units, D dimensions of the residual stream.
"""

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import torch
from torch import nn
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipeline.subjects.activation_sources import HookPoint
from pipeline.subjects.architecture import norm_scale, parameter

CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that go on with a character in UTF-8."""
BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""The byte that each character of a byte-level vocabulary stands for."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_PARENTS = ("", "decoder.", "language_model.", "model.", "text_model.")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


class TokenTexts:
    """Token ids to texts that, joined, are the text.

    A character whose bytes are spread over several tokens belongs to the token that ends it; the texts of the tokens before that
    one are empty. So are those of special tokens, which are not text.

    Byte-level BPE, SentencePiece (BPE or unigram, with or without byte fallback) and WordPiece are known; for other kinds each
    token is decoded alone. What a tokenizer does not keep cannot be shown: WordPiece and many normalizers lose capitals, accents
    and double spaces.
    """

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer: a fast transformers tokenizer."""
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._scheme = _scheme(json.loads(tokenizer.backend_tokenizer.to_str()))
        self._added = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
        self._bytes: dict[int, bytes] = {}

    def one(self, token_id: int) -> str:
        """The text of a token that stands alone, with the white space in front; U+FFFD where it is a part of a character."""
        return self.joined([token_id])

    def is_text(self, token_id: int) -> bool:
        """Whether a token stands for text or for a part of a character, and not for something special."""
        return bool(self._utf8(token_id))

    def joined(self, token_ids: Sequence[int]) -> str:
        """The text of consecutive tokens, with U+FFFD for the parts of characters that are cut at its ends."""
        return b"".join(map(self._utf8, token_ids)).decode("utf-8", errors="replace")

    def whole(self, token_ids: Sequence[int]) -> str:
        """The text of consecutive tokens, without the characters that are cut at its ends."""
        return "".join(self.window(token_ids, opening=False))

    def window(self, token_ids: Sequence[int], *, opening: bool, before: Sequence[int] = ()) -> list[str]:
        """The text of each of consecutive tokens.

        A character that the window ends within is shown by the window after it, so that the windows of a document, joined, are the
        document.

        Args:
            token_ids: T token ids.
            opening: whether the first of them that is no special token opens a document. SentencePiece and WordPiece
                then show a space that the text does not have, and it is left out.
            before: the tokens in front of the window, at least three of them where there are so many. Without them a
                character that the window begins within is left out.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(map(self._utf8, before)))
        begun = bool(decoder.getstate()[0])
        texts = []
        for token_id in token_ids:
            data = self._utf8(token_id)
            begun = begun or bool(data := data.lstrip(CONTINUATION))
            texts.append(decoder.decode(data))
        if opening and self._scheme in {"sentencepiece", "wordpiece"}:
            first = next((place for place, text in enumerate(texts) if text), None)
            if first is not None:
                texts[first] = texts[first].removeprefix(" ")
        return texts

    def _utf8(self, token_id: int) -> bytes:
        if token_id not in self._bytes:
            self._bytes[token_id] = self._find(token_id)
        return self._bytes[token_id]

    def _find(self, token_id: int) -> bytes:
        if token_id in self._special:
            return b""
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if self._scheme == "sentencepiece" and _BYTE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        if token_id in self._added:
            return self._added[token_id].encode()
        if self._scheme == "bytes":
            return bytes(BYTES[character] for character in piece)
        if self._scheme == "sentencepiece":
            return str(piece).replace("\u2581", " ").encode()
        if self._scheme == "wordpiece":
            return (str(piece[2:]) if piece.startswith("##") else f" {piece}").encode()
        return str(self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False)).encode()


def _scheme(backend: dict[str, Any]) -> str:
    """bytes, sentencepiece, wordpiece or other, by how the tokenizer puts text together again."""
    decoder = json.dumps(backend.get("decoder") or {})
    if '"ByteLevel"' in decoder:
        return "bytes"
    if '"Metaspace"' in decoder or "\\u2581" in decoder:
        return "sentencepiece"
    return "wordpiece" if '"WordPiece"' in decoder else "other"


@dataclass(frozen=True)
class Unembedding:
    """The head that predicts tokens."""

    weight: torch.Tensor
    """(V, D)"""
    norm: nn.Module | None
    """The norm at the end of the layers; None where there is none."""

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (U, D) as what the head multiplies: unembed(final norm(vector)) is `project(vectors) @ weight.T`.

        The vectors are brought to length sqrt(D) first, since the norm of a whole residual stream takes the scale out. What a
        LayerNorm adds to every vector alike, its bias, is left out, so that the opposite vector gives the opposite.
        A vector of zeros gives zeros.
        """
        size = vectors.square().mean(dim=-1, keepdim=True).sqrt()
        scaled = vectors / torch.where(size > 0, size, 1)
        normed = scaled if self.norm is None else _without_bias(self.norm, scaled)
        return normed.to(self.weight.device, self.weight.dtype)


def find_unembedding(model: Any, dimensions: int) -> Unembedding | None:
    """The head of a transformers model; None where it has none that multiplies the normed residual stream.

    Encoders have a head with layers of its own, and some models project to another number of dimensions first: what a
    unit writes is then not read off directly.

    Args:
        model: a language model with its head, or a model without one.
        dimensions: D.
    """
    head = model.get_output_embeddings()
    others = (child for child in model.children() if child is not head and child is not model.base_model)
    between = any(weight.numel() for other in others for weight in other.parameters())
    if not isinstance(head, nn.Linear) or head.in_features != dimensions or between:
        return None
    modules = dict(model.base_model.named_modules())
    paths = (parent + name for parent, name in product(_PARENTS, _FINAL_NORMS))
    return Unembedding(parameter(head), next((modules[path] for path in paths if path in modules), None))


def embedding_rows(model: Any, hook_point: HookPoint) -> torch.Tensor:
    """(V, D) the embedding as the units of a hook point meet it: normalised where they read what a norm gives.

    The weight of that norm is left out, as the vectors that units read (`UnitVectors.reads`) have it already.
    """
    rows = parameter(model.get_input_embeddings())
    if hook_point.norm is None:
        return rows
    normed = _without_bias(hook_point.norm, rows)
    scale = norm_scale(hook_point.norm, rows.shape[1]).to(normed.device)
    return torch.where(scale == 0, 0, normed / torch.where(scale == 0, 1, scale))


def _without_bias(norm: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (N, D) through a norm, less what it makes of zeros."""
    weight = next(norm.parameters(), vectors)
    if weight.device.type != "meta":  # else accelerate fetches the weight and moves what it is applied to
        vectors = vectors.to(weight.device, weight.dtype)
    with torch.no_grad():
        return cast(torch.Tensor, norm(vectors) - norm(torch.zeros_like(vectors[:1])))
