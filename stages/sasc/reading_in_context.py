"""Responses to n-grams from the sequences that hold them: the mean over the occurrences, with no text to evaluate.

At each occurrence the activations on the n-gram's tokens are pooled; a word's tokens are those that share a character
with it. Left out are occurrences that touch the first record.skip_positions tokens of a sequence (attention sinks), and words
that a sequence begins or ends within.

Shapes: B sequences of a batch, T tokens, M occurrences, L tokens of each, U units, N n-grams.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.subjects.activations import Activations, ActivationSource, SparseActivations, TokenBatch
from pipeline.subjects.text_functions import Pool, pooled
from pipeline.subjects.token_text import TokenTexts
from stages.sasc.ngram_pieces import SEPARATOR, read_tokens, read_words, token_forms, word_forms, word_spans
from stages.settings import Record, Sasc

AT_ONCE = 1 << 22
"""Activations gathered at a time."""

Ints = npt.NDArray[np.int64]
Spans = npt.NDArray[np.int64]
"""(M, 4): a row of the batch, an n-gram, its first token and the one after its last."""


class Places:
    """Where the n-grams of a list stand in a sequence."""

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
        self._number = {_words_key(text) if self._words else text: number for number, text in enumerate(texts)}

    def find(self, start: int, token_ids: Sequence[int], tokens: Sequence[str]) -> list[tuple[int, int, int]]:
        """Number, first token, and the one after the last, of each n-gram of a sequence that is in the list.

        Args:
            start: offset of the sequence in its document, in tokens.
            token_ids: its T tokens.
            tokens: their texts, which joined are the text.
        """
        if not self._words:
            forms = token_forms(token_ids, self._token_texts.joined, self._sizes, 0)
            found = [
                (self._number.get(read_tokens(form).key), first, stop)
                for form, first, stop in forms
                if all(map(self._token_texts.is_text, token_ids[first:stop]))
            ]
        else:
            found = self._find_words(start, tokens)
        return [(number, first, stop) for number, first, stop in found if number is not None and first >= self._skip]

    def _find_words(self, start: int, tokens: Sequence[str]) -> list[tuple[int | None, int, int]]:
        text = "".join(tokens)
        spans = word_spans(text)
        ends = np.cumsum([len(token) for token in tokens])
        begins = ends - [len(token) for token in tokens]
        firsts = np.searchsorted(ends, [span[0] for span in spans], side="right").tolist()
        stops = np.searchsorted(begins, [span[1] for span in spans], side="left").tolist()
        low = int(bool(spans) and start > 0 and spans[0][0] == 0)
        high = len(spans) - int(bool(spans) and len(tokens) >= self._full and spans[-1][1] == len(text))
        return [
            (self._number.get(read_words(form).key), firsts[first], stops[stop - 1])
            for form, first, stop in word_forms(text, self._sizes, 0, spans)
            if first >= low and stop <= high
        ]


@dataclass
class Means:
    """Sums over the occurrences of N n-grams."""

    counts: Ints
    """(N,) occurrences."""
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    """(N, U) float64 by module, on the CPU, where the order of adding is always the same."""

    def add(self, module: str, activations: Activations, spans: Spans, units: Sequence[int], pool: Pool) -> None:
        """Add the occurrences of a batch.

        Args:
            activations: of all units of the module on the batch.
            units: the U units that are wanted.
        """
        wide = _columns(activations, units)
        sums = self.sums.setdefault(module, torch.zeros(len(self.counts), len(units), dtype=torch.float64))
        lengths = spans[:, 3] - spans[:, 2]
        for length in np.unique(lengths).tolist():
            found = spans[lengths == length]
            size = max(1, AT_ONCE // (length * len(units)))
            for start in range(0, len(found), size):
                rows, ngrams, first, _ = torch.from_numpy(found[start : start + size].T.copy())
                positions = first[:, None] + torch.arange(length)
                own = wide[rows[:, None].to(wide.device), positions.to(wide.device)]  # (M, L, U)
                responses = pooled(own, torch.ones(own.shape[:2], dtype=torch.bool, device=wide.device), pool)
                sums.index_add_(0, ngrams, responses.cpu().double())

    def responses(self, module: str) -> tuple[Ints, torch.Tensor]:
        """The numbers of the n-grams that occur, and their (M, U) mean responses."""
        seen = np.flatnonzero(self.counts)
        return seen, self.sums[module][seen] / torch.from_numpy(self.counts[seen])[:, None]


def scan_in_context(
    source: ActivationSource,
    batches: Iterable[tuple[TokenBatch, Spans]],
    means: Means,
    units: Mapping[str, Sequence[int]],
    pool: Pool,
) -> None:
    """Run over batches of sequences and add what they say of n-grams.

    Args:
        batches: some batches, with the occurrences in each.
        units: those that are wanted of each module.
    """
    for batch, spans in batches:
        np.add.at(means.counts, spans[:, 1], 1)

        def receive(module: str, activations: Activations, spans: Spans = spans) -> None:
            means.add(module, activations, spans, units[module], pool)

        source.run(batch, receive)


def _words_key(text: str) -> str:
    return SEPARATOR.join(text[start:stop] for start, stop in word_spans(text)).casefold()


def _columns(activations: Activations, units: Sequence[int]) -> torch.Tensor:
    """(B, T, U) of some units."""
    if not isinstance(activations, SparseActivations):
        found: torch.Tensor = activations[..., torch.as_tensor(list(units), device=activations.device)]
        return found
    texts, tokens, width = activations.shape
    device = activations.values.device
    column = torch.full((width,), -1, device=device)
    column[torch.as_tensor(list(units), device=device)] = torch.arange(len(units), device=device)
    places = column[activations.units]
    kept = places >= 0
    dense = torch.zeros(texts * tokens, len(units), device=device)
    dense[activations.positions[kept], places[kept]] = activations.values[kept].float()
    return dense.reshape(texts, tokens, len(units))
