"""Where n-grams stand in the sequences of the corpus, and the mean responses of units there.

Shapes: B sequences of a batch, T tokens, M occurrences, L tokens of each, U units, N n-grams.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.subjects.activations import Activations, SparseActivations
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.text_functions import Pool, pooled
from pipeline.subjects.vocabulary import TokenTexts
from stages.sasc import Sasc
from stages.sasc.ngram_pieces import read_tokens, read_words, token_forms, word_forms, word_spans, words_key
from stages.settings import Record

AT_ONCE = 1 << 22
"""Activations gathered at a time."""

Ints = npt.NDArray[np.int64]


class Places:
    """Where the n-grams of a list stand in sequences of the corpus."""

    def __init__(self, texts: Sequence[str], config: RunConfig, token_texts: TokenTexts) -> None:
        """
        Args:
            texts: the N n-grams.
            token_texts: used where n-grams are made of tokens.
        """
        self._words = config[Sasc].pieces == "words"
        self._sizes = sorted(set(config[Sasc].sizes))
        self._skip, self._full = config[Record].skip_positions, config.corpus.seq_len
        self._token_texts = token_texts
        self._number = {words_key(text) if self._words else text: number for number, text in enumerate(texts)}

    @classmethod
    def of(cls, texts: Sequence[str], config: RunConfig) -> "Places":
        """Those of a run's n-grams."""
        subject = config.subject
        return cls(texts, config, TokenTexts(load_tokenizer(subject.model, subject.trust_remote_code)))

    def find(self, start: int, token_ids: Sequence[int], tokens: Sequence[str]) -> list[tuple[int, int, int]]:
        """Number, first token, and the one after the last, of each n-gram of a sequence that is in the list.

        The tokens of a word are those that share a character with it. Left out are n-grams that touch the first
        record.skip_positions tokens (attention sinks), and words that the sequence begins or ends within.

        Args:
            start: offset of the sequence in its document, in tokens.
            token_ids: its T tokens.
            tokens: their texts, which joined are the text.
        """
        found = self._find_words(start, tokens) if self._words else self._find_tokens(token_ids)
        numbered = ((self._number.get(key), first, stop) for key, first, stop in found if first >= self._skip)
        return [(number, first, stop) for number, first, stop in numbered if number is not None]

    def _find_tokens(self, token_ids: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        for form, first, stop in token_forms(token_ids, self._token_texts.joined, self._sizes):
            if all(map(self._token_texts.is_text, token_ids[first:stop])):
                yield read_tokens(form).key, first, stop

    def _find_words(self, start: int, tokens: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        text = "".join(tokens)
        spans = word_spans(text)
        ends = np.cumsum([len(token) for token in tokens])
        begins = ends - [len(token) for token in tokens]
        firsts = np.searchsorted(ends, [span[0] for span in spans], side="right").tolist()
        stops = np.searchsorted(begins, [span[1] for span in spans], side="left").tolist()
        low = int(bool(spans) and start > 0 and spans[0][0] == 0)
        high = len(spans) - int(bool(spans) and len(tokens) >= self._full and spans[-1][1] == len(text))
        for form, first, stop in word_forms(text, self._sizes, 0, spans):
            if first >= low and stop <= high:
                yield read_words(form).key, firsts[first], stops[stop - 1]


class Means:
    """Mean responses of U units over the occurrences of N n-grams, summed on the CPU, always in the same order."""

    def __init__(self, ngrams: int, units: Sequence[int], pool: Pool) -> None:
        """
        Args:
            ngrams: N.
            units: indices of the U units among those that activations are given of.
            pool: how the activations on the tokens of an occurrence become one number.
        """
        self._units, self._pool = list(units), pool
        self._counts = np.zeros(ngrams, np.int64)
        self._sums = torch.zeros(ngrams, len(units), dtype=torch.float64)

    def add(self, activations: Activations, spans: Ints) -> None:
        """Add the occurrences in a batch.

        Args:
            activations: of all units of the module.
            spans: (M, 4) a row of the batch, an n-gram, its first token and the one after its last.
        """
        self._counts += np.bincount(spans[:, 1], minlength=len(self._counts))
        wide = _columns(activations, self._units)
        lengths = spans[:, 3] - spans[:, 2]
        for length in np.unique(lengths).tolist():
            found = spans[lengths == length]
            size = max(1, AT_ONCE // (length * len(self._units)))
            for start in range(0, len(found), size):
                rows, ngrams, first, _ = torch.from_numpy(found[start : start + size].T.copy())
                positions = first[:, None] + torch.arange(length)
                own = wide[rows[:, None].to(wide.device), positions.to(wide.device)]  # (M, L, U)
                responses = pooled(own, torch.ones(own.shape[:2], dtype=torch.bool, device=wide.device), self._pool)
                self._sums.index_add_(0, ngrams, responses.cpu().double())

    def responses(self) -> tuple[Ints, torch.Tensor]:
        """The numbers of the n-grams that occur, and their (M, U) mean responses."""
        seen = np.flatnonzero(self._counts)
        return seen, self._sums[seen] / torch.from_numpy(self._counts[seen])[:, None]


def _columns(activations: Activations, units: Sequence[int]) -> torch.Tensor:
    """(B, T, U) of some units."""
    if not isinstance(activations, SparseActivations):
        found: torch.Tensor = activations[..., torch.as_tensor(units, device=activations.device)]
        return found
    texts, tokens, width = activations.shape
    device = activations.values.device
    column = torch.full((width,), -1, device=device)
    column[torch.as_tensor(units, device=device)] = torch.arange(len(units), device=device)
    places = column[activations.units]
    kept = places >= 0
    dense = torch.zeros(texts * tokens, len(units), device=device)
    dense[activations.positions[kept], places[kept]] = activations.values[kept].float()
    return dense.reshape(texts, tokens, len(units))
