"""A tiny real model as a server uses it: replies token by token, and the log-probabilities of tokens."""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from pipeline.subjects.loading.model_loading import LoadedModel
from tests.pipeline.llm.conftest import CHAT, byte_tokenizer, tiny_model

NUMBER_BIAS = 12.0
"""Added to the logits of the digits, so that all numbers are among the alternatives."""


class ServedModel:
    """Greedy or sampled continuation of token ids, without any cache, one token at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.tokenizer, self._model = loaded.tokenizer, loaded.model
        self._known = len(loaded.tokenizer)
        self.end = int(loaded.tokenizer.eos_token_id)

    def chat_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return self.text_ids(text)

    def text_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    @torch.inference_mode()
    def log_probabilities(self, ids: Sequence[int]) -> torch.Tensor:
        """(T, V): row i is of the token behind the first i + 1."""
        return self._model(torch.tensor([list(ids)])).logits[0].float().log_softmax(dim=1)

    def reply(
        self, ids: Sequence[int], room: int, temperature: float, seed: int | None, stop: Sequence[str]
    ) -> tuple[list[int], list[torch.Tensor], bool]:
        """Token ids (the end token left out), the (V,) log-probabilities of each, and whether it ended by itself."""
        generator = torch.Generator().manual_seed(random.getrandbits(60) if seed is None else seed)
        found: list[int] = []
        rows: list[torch.Tensor] = []
        for _ in range(room):
            row = self.log_probabilities([*ids, *found])[-1]
            chances = (row / (temperature or 1))[: self._known].softmax(dim=0)
            token = int(torch.multinomial(chances, 1, generator=generator)) if temperature else int(chances.argmax())
            if token == self.end:
                return found, rows, True
            found.append(token)
            rows.append(row)
            if any(mark in self.text(found) for mark in stop):
                return found[:-1], rows[:-1], True
        return found, rows, False

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def spelling(self, token: int) -> bytes:
        """The bytes of one token."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        return bytes(_byte_of()[letter] for letter in piece) if token >= 2 and piece != "<tool>" else piece.encode()

    def likeliest(self, row: torch.Tensor, count: int) -> list[tuple[int, float]]:
        values, ids = row.topk(count)
        return list(zip(ids.tolist(), values.tolist(), strict=True))


def served(ten: bool = False, template: str | None = CHAT) -> LoadedModel:
    """A tiny model whose digits are likely everywhere, with "10" in one token or two, and with or without chat."""
    tokenizer = byte_tokenizer(ten, template)
    loaded = tiny_model("llama", tokenizer)
    old = loaded.model.get_output_embeddings()
    head = torch.nn.Linear(old.in_features, old.out_features)
    bias = torch.zeros(old.out_features)
    numbers = {token for number in range(11) for token in tokenizer(str(number), add_special_tokens=False).input_ids}
    bias[sorted(numbers)] = NUMBER_BIAS
    head.weight, head.bias = old.weight, torch.nn.Parameter(bias, requires_grad=False)
    loaded.model.set_output_embeddings(head)
    return loaded


@cache
def _byte_of() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def plain(value: Any) -> Any:
    """A float of a tensor, rounded as servers print it."""
    return round(float(value), 9)
