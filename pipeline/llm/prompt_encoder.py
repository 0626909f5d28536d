"""Conversations and numbers to token ids, piece by piece, so that positions are known and no text acts as a special token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.llm.engine import NUMBERS, Message

Probabilities = npt.NDArray[np.float64]

_KEPT_LENGTH = 64  # characters of the longest pieces whose token ids are kept; token lines are shorter
_PLACE = "CONTENT-OF-MESSAGE-{}-"  # stands for a message in a rendered chat template
_PLACES = re.compile(r"CONTENT-OF-MESSAGE-(\d+)-")


@dataclass(frozen=True)
class Prompt:
    """Token ids of a conversation, cut before the content of its last message."""

    shared: tuple[int, ...]
    """What conversations that differ in the last message alone have in common."""
    own: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.shared + self.own


class PromptEncoder:
    """Encodes the pieces of prompts with a fast tokenizer.

    Each piece is encoded by itself. Text never becomes a special or added token: wherever it spells one, it is encoded
    in two parts, cut after the first character. Tokenizers that put a space before every text are given a line break
    (or a tab, for a number) in front, whose tokens are then taken off again.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        added = sorted((text for text in tokenizer.get_added_vocab() if len(text) > 1), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, added))) if added else None
        self._needs_anchor = self._ids("\na") != self._ids("\n") + self._ids("a")
        self._encode = lru_cache(maxsize=65_536)(self._encode_uncached)
        self._shared = lru_cache(maxsize=64)(self._shared_uncached)
        self._rendered = lru_cache(maxsize=64)(self._rendered_uncached)
        self._template_ids = lru_cache(maxsize=64)(self._ids)

    def encode(self, text: str, before: str = "\n") -> tuple[int, ...]:
        """Token ids of a piece of text that follows `before`."""
        return self._encode(text, before) if len(text) <= _KEPT_LENGTH else self._encode_uncached(text, before)

    def conversation(self, messages: Sequence[Message]) -> Prompt:
        """Token ids of the messages, up to where the assistant's next reply begins.

        Raises:
            UserError: the model's chat template does not show every message once.
        """
        return self._chat(messages) if self.is_chat else self._plain(messages)

    def reply(self, pieces: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each piece of the reply's beginning."""
        first = pieces[0].lstrip() if self.is_chat else _separated(pieces[0], "assistant")
        return [self.encode(first), *(self.encode(piece) for piece in pieces[1:])]

    def _plain(self, messages: Sequence[Message]) -> Prompt:
        start, texts = self._tokenizer("").input_ids[:1], plain_texts(messages)
        shared = self._shared(tuple(texts[:-1]), ("",) * len(texts))
        first = tuple(start) if start and start[0] == self._tokenizer.bos_token_id else ()
        return Prompt(first + shared, self.encode(texts[-1]))

    def _chat(self, messages: Sequence[Message]) -> Prompt:
        pieces = _PLACES.split(self._rendered(tuple(message.role for message in messages)))
        contents = [message.content.lstrip() for message in messages]
        if [int(number) for number in pieces[1::2]] != list(range(len(messages))):
            merged = _without_system(messages)
            if len(merged) < len(messages):
                return self._chat(merged)
            raise UserError(
                f"the chat template of {self._tokenizer.name_or_path} does not show each message once, in order; "
                "use another model, or delete the template to use the model without chat"
            )
        templates = pieces[::2]
        shared = self._shared(tuple(contents[:-1]), tuple(templates[:-1]))
        return Prompt(shared, self.encode(contents[-1]) + self._template_ids(templates[-1]))

    def _shared_uncached(self, contents: tuple[str, ...], templates: tuple[str, ...]) -> tuple[int, ...]:
        """Token ids of the first template text, then of each content and the template text behind it."""
        parts = [self._template_ids(templates[0])]
        for content, template in zip(contents, templates[1:], strict=True):
            parts += [self.encode(content), self._template_ids(template)]
        return sum(parts, ())

    def _rendered_uncached(self, roles: tuple[str, ...]) -> str:
        """The chat template with places for the contents; empty where the template refuses these roles."""
        turns = [{"role": role, "content": _PLACE.format(number)} for number, role in enumerate(roles)]
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except jinja2.TemplateError:
            return ""

    def _encode_uncached(self, text: str, before: str) -> tuple[int, ...]:
        ids: tuple[int, ...] = ()
        start = 0
        while self._added and (match := self._added.search(text, start)):
            ids += self._piece_ids(text[start : match.start() + 1], before)
            start = match.start() + 1
        return ids + self._piece_ids(text[start:], before)

    def _piece_ids(self, text: str, before: str) -> tuple[int, ...]:
        if not self._needs_anchor or not text:
            return self._ids(text)
        anchor = self._ids(before)
        anchored = self._ids(before + text)
        return anchored[len(anchor) :] if anchored[: len(anchor)] == anchor else self._ids(text)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)


def plain_texts(messages: Sequence[Message]) -> list[str]:
    """The messages for a model without chat, which reads them joined, as `Message` says."""
    return [messages[0].content, *(_separated(message.content, message.role) for message in messages[1:])]


def _separated(content: str, role: str) -> str:
    if role != "assistant":
        return "\n\n" + content
    return content if content[:1].isspace() else " " + content


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with a leading system text put into the first user turn, for templates without that role."""
    if len(messages) < 2 or messages[0].role != "system" or messages[1].role != "user":
        return list(messages)
    return [Message("user", f"{messages[0].content}\n\n{messages[1].content}"), *messages[2:]]


@dataclass(frozen=True)
class NumberTokens:
    """How a tokenizer writes the numbers, and their probabilities from those of tokens, W wanted tokens at S slots.

    A number's probability is the product of its tokens' probabilities, each after the ones before it. Where a number's
    tokens begin another number's ("1" begins "10" wherever each digit is a token), the shorter number gets only what the
    longer one leaves: P(10) = P("1") P("0" | "1") and P(1) = P("1") (1 - P("0" | "1")). That is exact; it needs one more
    token read for each such beginning.
    """

    ids: tuple[tuple[int, ...], ...]
    """Token ids of each of NUMBERS."""
    beginnings: tuple[tuple[int, ...], ...]
    """The N proper beginnings of numbers, the shorter ones first; none where each number is one token."""
    wanted: tuple[int, ...]
    """All tokens that numbers are written with, rising."""

    def numbers(self, log_probabilities: Probabilities) -> Probabilities:
        """Log-probabilities of the numbers.

        Args:
            log_probabilities: (S, 1 + N, W) of the wanted tokens, at the slot itself and after each beginning.

        Returns:
            (S, 11), not normalised.
        """
        return np.stack([self._number(ids, log_probabilities) for ids in self.ids], axis=1)

    def written(self, tokens: tuple[int, ...], log_probabilities: Probabilities) -> Probabilities:
        """(S,) log-probabilities of a number or a beginning, whatever follows it."""
        places = [self.after(tokens[:end]) for end in range(len(tokens))]
        columns = [self.wanted.index(token) for token in tokens]
        return log_probabilities[:, places, columns].sum(axis=1)

    def after(self, tokens: tuple[int, ...]) -> int:
        """Where the log-probabilities after a beginning are; at 0 those of the slot itself."""
        return 1 + self.beginnings.index(tokens) if tokens else 0

    def _number(self, ids: tuple[int, ...], log_probabilities: Probabilities) -> Probabilities:
        total, length = self.written(ids, log_probabilities), len(ids)
        longer = {other[length] for other in self.ids if len(other) > length and other[:length] == ids}
        if not longer:
            return total
        columns = [self.wanted.index(token) for token in longer]
        left = 1.0 - np.exp(log_probabilities[:, self.after(ids), columns]).sum(axis=1)
        return total + np.log(np.maximum(left, 1e-300))


def number_tokens(encoder: PromptEncoder) -> NumberTokens:
    """How the encoder's tokenizer writes the numbers after a tab.

    Raises:
        UserError: two numbers are written alike, as when the tokenizer has no digits.
    """
    ids = tuple(encoder.encode(str(number), before="\t") for number in NUMBERS)
    if len(set(ids)) < len(ids) or not all(ids):
        raise UserError(
            f"the tokenizer writes the numbers 0 to 10 as {ids}, not all different; "
            "reading them off a prompt needs a model whose tokenizer tells them apart"
        )
    beginnings = {number[:end] for number in ids for end in range(1, len(number))}
    wanted = sorted({token for number in ids for token in number})
    return NumberTokens(ids, tuple(sorted(beginnings, key=lambda part: (len(part), part))), tuple(wanted))


def normalised(logs: Probabilities) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities of the numbers from (S, 11) log-probabilities, each row summing to 1, and (S,) their sums before that.

    A row without any number has a sum of 0 and NaN as its probabilities, so that nobody takes them for a value.
    """
    with np.errstate(under="ignore", invalid="ignore"):
        total = np.logaddexp.reduce(logs, axis=1)
        return np.exp(logs - total[:, None]).astype(np.float32), np.exp(total).astype(np.float32)
