"""Texts for and against an explanation from the corpus: passages near to it, and passages far from it.

Shapes: N passages, D numbers of an embedding.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS
from pipeline.subjects.loading.model_source import resolve_model
from stages.methods import Method
from stages.sasc import Sasc
from stages.sasc.ngram_pieces import normalised_text
from stages.sasc.synthesize import Texts
from stages.sasc.text_lists import usable
from stages.units import draw

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

PASSAGES = 5_000
"""Passages of the corpus that texts are retrieved from, at most."""
FEWEST_WORDS, MOST_WORDS = 4, 40
"""Words of a passage."""
FAR = 0.5
"""Share of the passages, those least like the explanation, that baseline texts are drawn from."""
_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])|\n+")


class RetrievedSynthesizer:
    """Passages nearest to an explanation, and passages from the far half with the same lengths.

    They come from the corpus that the n-grams come from. N-grams were chosen out of all of it, so no part of it could be set
    aside that they had nothing to do with.
    """

    def __init__(self, passages: Sequence[str], embedder: "Embedder") -> None:
        self._passages = usable(passages, [])
        self._embedder = embedder
        self._vectors = embedder.encode(self._passages)  # (N, D)
        self._lengths = np.array([len(passage.split()) for passage in self._passages], dtype=np.int64)

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """The `count` nearest passages by cosine with the explanation, and as many from the far half, alike in length."""
        likeness = (self._vectors * self._embedder.encode([explanation])[0]).sum(axis=1)  # (N,), row by row
        order = np.argsort(-likeness, kind="stable")
        near = order[: min(count, len(order) // 2)]
        far = order[len(order) - int(FAR * len(order)) :]
        against = self._alike_in_length(near, far, np.random.default_rng(seed))
        error = "" if len(near) == count == len(against) else f"the corpus has {len(order)} passages only"
        relevant = [self._passages[place] for place in near]
        return Texts(relevant, [self._passages[place] for place in against], "retrieved", errors=(error, error))

    def _alike_in_length(
        self, near: npt.NDArray[np.int64], far: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> list[int]:
        """For each of `near` one of `far`, none twice, of nearly the same number of words; drawn among equals."""
        left = far[rng.permutation(len(far))]
        found: list[int] = []
        for place in near:
            if not len(left):
                break
            at = int(np.argmin(np.abs(self._lengths[left] - self._lengths[place])))
            found.append(int(left[at]))
            left = np.delete(left, at)
        return found


def cut_passages(texts: Iterable[tuple[str, bool]], most: int, rng: np.random.Generator) -> list[str]:
    """Sentences of FEWEST_WORDS to MOST_WORDS words, each once; a random part of them where there are more than `most`.

    Args:
        texts: windows of documents; with each, whether it begins where its document does, so that its first piece is whole.
    """
    found: dict[str, str] = {}
    for text, whole in texts:
        pieces = [piece.strip() for piece in _END.split(text)]
        inner = pieces if whole else pieces[1:]
        for piece in inner:
            if FEWEST_WORDS <= len(piece.split()) <= MOST_WORDS and piece.rstrip("\"'”’)")[-1:] in ".!?…":
                found.setdefault(normalised_text(piece), piece)
    passages = list(found.values())
    chosen = np.sort(rng.permutation(len(passages))[:most])
    return [passages[place] for place in chosen]


def corpus_passages(context: Context) -> list[str]:
    """Sentences of the corpus, at most PASSAGES of them, drawn by the seed."""
    rows = context.tables.read(CORPUS, columns=["seq_id", "start", "tokens"]).sort_by("seq_id").to_pydict()
    texts = (("".join(tokens), start == 0) for tokens, start in zip(rows["tokens"], rows["start"], strict=True))
    return cut_passages(texts, PASSAGES, draw(context.config.run.seed, "passages"))


def _build(context: Context, *_: object) -> RetrievedSynthesizer:
    from pipeline.subjects.embedder import load_embedder

    sasc = context.config[Sasc]
    return RetrievedSynthesizer(corpus_passages(context), load_embedder(sasc.embedder, sasc.device))


def _settings(sasc: Sasc) -> dict[str, Any]:
    return {"embedder": sasc.embedder, "embedder_revision": resolve_model(sasc.embedder).revision}


METHOD = Method("passages of the corpus near to the explanation, and far from it", _build, "none", settings=_settings)
