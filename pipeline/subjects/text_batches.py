"""Texts to batches of token ids of equal length, in which a text's row has the same value whatever texts stand beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.subjects.activations import TokenBatch

TOGETHER = 4096
"""Texts tokenised at a time."""
EXACT = 16
"""Up to this many tokens a batch holds texts of one length alone; longer ones are padded to a multiple of it."""
LONGEST = 512
"""Tokens of a text at most; longer ones are cut."""
BATCH_TOKENS = {"cpu": 256, "": 8192}
"""About the tokens of a batch by the type of the device, where it is that of `` for others."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TextBatch:
    """Texts of one length."""

    places: Ids
    """(M,) numbers of its M texts among those asked for."""
    tokens: TokenBatch
    """(B, T) with B >= M; rows from M on repeat the first, so that the shape of a batch follows from its length alone: rows
    of a product depend on its shape in their last bits."""
    counted: npt.NDArray[np.bool_]
    """(B, T) whether a token is text: not a special token, and not padding."""


class TextBatches:
    """How a model reads a text that stands alone.

    With the special tokens that its tokenizer puts around texts, and where that puts none in front, after the token that
    texts of its training began with or were set apart by: at the first position most models do something else than
    elsewhere, and a text of one token would be read there alone.
    """

    def __init__(
        self,
        tokenizer: Any,
        bos: Literal["auto", "yes", "no"] = "auto",
        longest: int | None = None,
        device: str = "cpu",
        *,
        opening: bool = True,
        padding: bool = True,
    ) -> None:
        """
        Args:
            tokenizer: a fast transformers tokenizer.
            bos: corpus.bos; "no" leaves out all special tokens.
            longest: tokens that the model reads at most.
            device: the type of the device that batches are made for.
            opening: put a token in front where the tokenizer does not.
            padding: long texts of similar length may share a batch.
        """
        self._exact = EXACT if padding else LONGEST
        self._tokenizer, self._special = tokenizer, bos != "no"
        self.longest = min(longest or LONGEST, LONGEST)
        self.batch_tokens = BATCH_TOKENS.get(device, BATCH_TOKENS[""])
        openings = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
        known = [token for token in openings if token is not None]
        self._opening = known[:1] if self._special and opening else []

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[bool]]]:
        """The token ids of each text, and which of them are text."""
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=self._special,
            split_special_tokens=True,
            truncation=True,
            max_length=max(2, self.longest - len(self._opening)),
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        found = []
        for ids, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            front = [] if special[:1] == [1] else self._opening
            found.append(([*front, *ids], [*([False] * len(front)), *(not one for one in special)]))
        return found

    def batches(self, texts: Sequence[str]) -> Iterator[TextBatch]:
        """One batch after another, by rising length; texts without a token are in none."""
        groups: dict[int, list[tuple[int, list[int], list[bool]]]] = {}
        for start in range(0, len(texts), TOGETHER):
            for place, (ids, counted) in enumerate(self.encode(texts[start : start + TOGETHER]), start):
                if any(counted):
                    length = len(ids) if len(ids) <= self._exact else -(-len(ids) // EXACT) * EXACT
                    groups.setdefault(min(length, self.longest), []).append((place, ids, counted))
        for length, members in sorted(groups.items()):
            size = self.rows(length)
            for start in range(0, len(members), size):
                yield _batch(members[start : start + size], length, size)

    def rows(self, length: int) -> int:
        """B of a batch of texts of this many tokens."""
        return max(4, self.batch_tokens // length)


def _batch(members: list[tuple[int, list[int], list[bool]]], length: int, size: int) -> TextBatch:
    token_ids, counted = np.zeros((size, length), np.int64), np.zeros((size, length), np.bool_)
    filled = [*members, *members[:1] * (size - len(members))]
    for row, (_, ids, text) in enumerate(filled):
        token_ids[row, : len(ids)], counted[row, : len(ids)] = ids, text
    lengths = np.asarray([len(ids) for _, ids, _ in filled])
    places = np.asarray([place for place, *_ in members], np.int64)
    return TextBatch(places, TokenBatch(token_ids, lengths, np.arange(size)), counted)
