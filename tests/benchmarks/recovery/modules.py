"""Modules whose concept is known, modules without one, and the n-grams that either is shown in each setting.

N texts or n-grams, D numbers of an embedding.
"""

import functools
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from stages.sasc.ngram_list import most_frequent
from stages.sasc.ngram_pieces import read_words, word_forms, words_key
from tests.benchmarks.recovery.concepts import Concept

Setting = Literal["default", "restricted", "noisy", "unnamed"]
SETTINGS: tuple[Setting, ...] = ("default", "restricted", "noisy", "unnamed")
PUBLISHED: Mapping[Setting, float] = {"default": 0.883, "restricted": 0.667, "noisy": 0.679}
"""Share of 54 concepts found again, Singh et al. 2023."""
SIZES = (1, 2, 3)
NOISE = 3.0
"""Standard deviations of the LOUDEST responses."""
LOUDEST = 100

Array = npt.NDArray[np.float64]


class Encoder(Protocol):
    """Texts to vectors, as `pipeline.subjects.embedder.Embedder`."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Module:
    """A function of texts, and the sentences that its n-grams come from."""

    name: str
    values: Callable[[Sequence[str]], Array]
    """N texts to N responses."""
    corpus: tuple[str, ...]
    held_out: bool
    concept: Concept | None = None
    """None for a module that was made of none."""


def planted_module(concept: Concept, encoder: Encoder) -> Module:
    """f(x) = -||e(x) - e(keyword)|| (Singh et al. 2023, section 4.1)."""

    def values(texts: Sequence[str]) -> Array:
        keyword = encoder.encode([concept.keyword]).astype(np.float64)
        return -np.linalg.norm(encoder.encode(texts).astype(np.float64) - keyword, axis=1)

    return Module(concept.name, values, concept.corpus, concept.held_out, concept)


def null_modules(
    concepts: Sequence[Concept], encoder: Encoder, count: int, setting: Setting, seed: int
) -> list[Module]:
    """Projections on random directions, on the corpora of the concepts in turn; others in each setting and for each seed."""
    width = encoder.encode([concepts[0].keyword]).shape[1]
    held_out = concepts[0].held_out
    rng = generator("directions", str(held_out), setting, seed)
    order = rng.permutation(len(concepts))
    directions = rng.standard_normal((count, width)) / np.sqrt(width)
    corpora = [concepts[order[number % len(concepts)]].corpus for number in range(count)]
    return [
        Module(f"null {number}", _projection(encoder, direction), corpus, held_out)
        for number, (direction, corpus) in enumerate(zip(directions, corpora, strict=True))
    ]


def _projection(encoder: Encoder, direction: Array) -> Callable[[Sequence[str]], Array]:
    return lambda texts: encoder.encode(texts).astype(np.float64) @ direction


def generator(*names: str | int) -> np.random.Generator:
    """Random numbers of one purpose."""
    return np.random.default_rng([zlib.crc32(str(name).encode()) for name in names])


@functools.cache
def ngrams_of(sentences: tuple[str, ...]) -> Mapping[str, str]:
    """The n-grams of SIZES words and punctuation marks, never across a sentence's end, as ngrams.list lists them: key to text."""
    forms = ([form for form, *_ in word_forms(sentence, SIZES)] for sentence in sentences)
    listed = most_frequent(forms, read_words, limit=sys.maxsize, min_count=1)
    return {words_key(text): text for text in listed["text"].to_pylist()}


def shown_ngrams(module: Module, setting: Setting, concepts: Sequence[Concept]) -> list[str]:
    """The n-grams of a module's corpus.

    If restricted, those that also occur in the corpus of another concept; if unnamed, those that the concept's pattern
    does not match, so that no n-gram gives the answer.
    """
    own = ngrams_of(module.corpus)
    if setting == "restricted":
        elsewhere = [ngrams_of(other.corpus) for other in concepts if other.corpus != module.corpus]
        return [text for key, text in own.items() if any(key in ngrams for ngrams in elsewhere)]
    if setting == "unnamed" and module.concept is not None:
        return [text for text in own.values() if not module.concept.matches(text)]
    return list(own.values())


def responses(module: Module, ngrams: Sequence[str], setting: Setting, seed: int) -> Array:
    """(N,) responses to n-grams; if noisy, with normal noise of NOISE standard deviations of the LOUDEST responses."""
    clean = module.values(ngrams)
    if setting != "noisy":
        return clean
    spread = float(np.std(np.sort(clean)[-LOUDEST:]))
    noise = generator("noise", module.name, str(module.held_out), seed).standard_normal(len(clean))
    return clean + NOISE * spread * noise
