"""A short label for a list of words, by a small causal language model.

Shapes: T tokens, V vocabulary.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.prompts import Prompt

if TYPE_CHECKING:
    from pipeline.subjects.loading.model_loading import LoadedModel

MOST_TOKENS = 10
MOST_WORDS = 7
CONTRASTS = (("red", "seven", "running", "table"), ("of", "house", "quickly", "Peter"))
"""Lists without anything in common; a label that follows them as readily says nothing of the unit's words."""
GENERIC = frozenset(
    {"words", "word", "things", "thing", "terms", "names", "nouns", "verbs", "adjectives", "text", "language"}
)
"""Words that a label needs more than."""
_FORM = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*(?:,? [^\W\d_]+(?:['’-][^\W\d_]+)*)*")


@dataclass(frozen=True)
class Label:
    """What a list of words has in common."""

    text: str
    fit: float
    """Nats a token by which the words make the label likelier than unrelated words do: each half of them, the lesser."""
    prompt_tokens: int
    completion_tokens: int


class Labeller:
    """Labels lists of words; the few-shot part of the prompt is run once."""

    def __init__(self, language_model: "LoadedModel", prompt: Prompt) -> None:
        self.name = language_model.name
        self.prompt = prompt
        self._model: Any = language_model.model
        self._tokenizer: Any = language_model.tokenizer
        self._device = language_model.device
        first, second = self._prompt(["apple"]), self._prompt(["zebra"])
        shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        self._prefix = first[:shared]
        self._cache: Any = None

    def label(self, words: Sequence[str]) -> Label | None:
        """The label that the model gives a list of words, greedily; None where what it writes is no label."""
        prompt = self._prompt(words)
        with torch.inference_mode():
            written = self._continue(prompt)
            text = clean(self._tokenizer.decode(written, skip_special_tokens=True), words)
            if not text:
                return None
            answer = self._tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            halves = (words[::2], words[1::2] or words)
            odd, even, *others = (self._likelihood(self._prompt(listed), answer) for listed in (*halves, *CONTRASTS))
        fit = min(odd, even) - sum(others) / len(others)
        return Label(text, fit, len(prompt), len(written))

    def _prompt(self, words: Sequence[str]) -> list[int]:
        return list(self._tokenizer(self.prompt.render(words=list(words)), add_special_tokens=False)["input_ids"])

    def _start(self, prompt: Sequence[int]) -> tuple[Any, list[int]]:
        """A copy of the few-shot part's key-value cache, and the rest of a prompt."""
        if list(prompt[: len(self._prefix)]) != self._prefix:
            return None, list(prompt)
        if self._cache is None:
            self._cache = self._model(self._batch(self._prefix), use_cache=True, logits_to_keep=1).past_key_values
        return copy.deepcopy(self._cache), list(prompt[len(self._prefix) :])

    def _continue(self, prompt: Sequence[int]) -> list[int]:
        """Greedy tokens up to the end of the line."""
        cache, rest = self._start(prompt)
        written: list[int] = []
        while len(written) < MOST_TOKENS:
            output = self._model(self._batch(rest), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            rest = [int(output.logits[0, -1].argmax())]
            if rest[0] == self._tokenizer.eos_token_id or "\n" in self._tokenizer.decode(rest):
                break
            written += rest
        return written

    def _likelihood(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Mean log-probability of an answer's tokens after a prompt, in nats."""
        cache, rest = self._start(prompt)
        ids = self._batch(rest + list(answer))
        output = self._model(ids, past_key_values=cache, logits_to_keep=len(answer) + 1)
        logits = output.logits[0, :-1].float()  # (T, V)
        return float(logits.log_softmax(dim=-1).gather(1, self._batch(answer).T).mean())

    def _batch(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(ids)], device=self._device)  # (1, T)


def clean(written: str, words: Sequence[str]) -> str:
    """A label without what surrounds it; empty if it is not one: too long, repetitive, an echo, or without content."""
    text = re.split(r"[\n.;:(\"“”]", written.strip().strip("\"'“”"))[0].strip(" ,-'\"")
    if not _FORM.fullmatch(text):
        return ""
    parts = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
    given = {word.lower() for word in words}
    repeated = any(parts.count(part) > 1 for part in parts if len(part) > 3)
    echo = sum(part in given for part in parts)
    content = [part for part in parts if part not in GENERIC and len(part) > 2]
    if len(parts) > MOST_WORDS or repeated or echo > 1 or not content:
        return ""
    return text[0].lower() + text[1:] if parts[0] in GENERIC else text
