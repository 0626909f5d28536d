"""List-PMI: what a language model names when it is asked for a list of what an explanation says.

Shapes: N words, C common words, V vocabulary of the language model.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.prompts import render

if TYPE_CHECKING:
    from pipeline.subjects.load import LoadedModel

PROMPT = "simulate/word_list.v1"
ANCHOR = "1."
"""End of the prompt, after which a word is tokenized as it would be there."""
UNRELATED = (
    "things", "words", "kinds of furniture", "adjectives", "common verbs", "abstract ideas", "tools", "shapes", "plants",
    "places", "people", "numbers", "events", "computer terms",
)  # fmt: skip
"""Categories against which a word's probability is held; a word likely in any list says nothing."""
LONGEST = 240
"""Characters of a phrase that are put into the prompt."""
PHRASE_BYTES = 64 * 2**20
MOST_WORDS = 100_000


class Listing:
    """One forward pass for each phrase gives a score for every word at once, by the word's first token."""

    def __init__(self, language_model: "LoadedModel", common: Sequence[str]) -> None:
        self._subject = language_model
        self._common = list(common)
        self._tokens: dict[str, int] = {}
        self._unrelated: npt.NDArray[np.float32] | None = None
        self._anchor = self._ids([ANCHOR])[0]

    @property
    def most_phrases(self) -> int:
        """Results of `read` that fit into PHRASE_BYTES."""
        width = 0 if self._unrelated is None else len(self._unrelated)
        return max(16, PHRASE_BYTES // max(1, 4 * width))

    def read(self, phrase: str) -> npt.NDArray[np.float32]:
        """(V,) log P(token | list of the phrase) - mean log P(token | list of something unrelated), standardised.

        Mean and deviation are those of the common words' first tokens.
        """
        if self._unrelated is None:
            self._unrelated = np.mean([self._log_probabilities(name) for name in UNRELATED], axis=0, dtype=np.float32)
        gain = self._log_probabilities(phrase) - self._unrelated
        firsts = self._firsts(self._common)
        common = gain[firsts[firsts >= 0]]
        if not len(common):
            return np.zeros_like(gain)
        return (gain - common.mean()) / max(float(common.std()), 1e-6)

    def scores(self, listed: npt.NDArray[np.float32], words: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N,) the score of each word, as it is written or in lower case, whichever is larger; NaN for no token."""
        written, lowered = self._firsts(words), self._firsts([word.lower() for word in words])
        best = np.maximum(listed[written], listed[lowered])
        return np.where((written >= 0) & (lowered >= 0), best, np.float32(np.nan))

    def _log_probabilities(self, phrase: str) -> npt.NDArray[np.float32]:
        """(V,) of the token after the prompt; phrases are run one by one, so that none depends on its neighbours."""
        import torch

        model = self._subject.model
        prompt = render(PROMPT, explanation=phrase[:LONGEST])
        ids = torch.tensor([self._ids([prompt], special=True)[0]], device=self._subject.device)
        options = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False, **options).logits[0, -1].float()
            result: npt.NDArray[np.float32] = torch.log_softmax(logits, dim=-1).cpu().numpy()
        return result

    def _firsts(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the first token of each word after the prompt; -1 where the tokenizer joins it with what stands before."""
        missing = sorted({word for word in words if word not in self._tokens})
        if len(self._tokens) + len(missing) > MOST_WORDS:
            self._tokens.clear()
            missing = sorted(set(words))
        if missing:
            size = len(self._anchor)
            for word, ids in zip(missing, self._ids([f"{ANCHOR} {word[:100]}" for word in missing]), strict=True):
                self._tokens[word] = ids[size] if ids[:size] == self._anchor and len(ids) > size else -1
        return np.array([self._tokens[word] for word in words], dtype=np.int64)

    def _ids(self, texts: list[str], special: bool = False) -> list[list[int]]:
        ids: list[list[int]] = self._subject.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return ids
