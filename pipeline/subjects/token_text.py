"""The text that each token of a vocabulary stands for, whatever the kind of tokenizer."""

import codecs
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_BYTE = re.compile("<0x[0-9A-F]{2}>")
REPLACEMENT = "\ufffd"
CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that go on with a character in UTF-8."""
LONGEST_CHARACTER = 4
"""Bytes, and so tokens, of a character at most."""


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
            table = _byte_of_character()
            return bytes(table[character] for character in piece)
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


@cache
def _byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: GPT-2's table, the other way round.

    Printable bytes stand for themselves; the others, in order, for the characters from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}
