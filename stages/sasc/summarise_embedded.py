"""Says what n-grams share without a language model: words and a head of a thesaurus that they are like, words of theirs, shared forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.llm.engine import Engine, EngineError, Message, Request
from pipeline.prompts import render
from stages.english.thesaurus import shared_heads
from stages.explain.base import Candidate, ExplanationError
from stages.sasc.naming import Kept, Naming
from stages.sasc.surface import SharedForms

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

LABEL = "explain/label.v1"
LABEL_TOKENS = 10
LABEL_WORDS = 8
NAMES = 3
"""Words of the vocabulary in an explanation."""
TERMS = 4
"""Words of the n-grams in an explanation, at most."""
FITTING = 0.75
"""Share of the best name's fit with which the language model's label comes first, and the thesaurus's head after it."""
HEADS = 1
"""Heads of the thesaurus in an explanation, at most."""


@dataclass(frozen=True)
class Theme:
    """What some n-grams share."""

    names: list[str]
    words: list[str]
    """Words of the n-grams that stand for it, or the n-grams."""
    spent: tuple[int, int]
    """Tokens that its label took: of the prompt and of the reply."""


class EmbeddedSummariser:
    """Names what the n-grams are most like in meaning, with the words of theirs that stand for it best.

    With a language model its label of those words comes first, and then the head of the thesaurus that they share; each where it fits
    about as well as the names. N-grams of two unlike meanings are named apart, unless a name of the one says what a name of the other
    does: what two clusters have a name for is one theme.
    """

    name = "sasc_embedded"

    def __init__(self, embedder: "Embedder", engine: Engine | None = None) -> None:
        self._naming = Naming(embedder)
        self._forms = SharedForms(self._naming.common, self._naming.vocabulary)
        self._engine = engine

    async def explain(self, drawn: Sequence[str], kept: Kept, seed: int) -> Candidate:
        """See `Summariser`; the seed takes no part.

        Raises:
            ExplanationError: there are no n-grams.
        """
        if not drawn:
            raise ExplanationError("there are no n-grams to explain")
        clusters = self._naming.clusters(drawn, kept)
        found = themes = [await self._theme(cluster, kept, seed, len(clusters)) for cluster in clusters]
        if len(themes) == 2 and self._naming.overlap(themes[0].names, themes[1].names):
            themes = [await self._theme(drawn, kept, seed, 1)]
            found = [*found, *themes]
        text = "; and ".join(f"{', '.join(theme.names)}: as in {', '.join(theme.words)}" for theme in themes)
        if forms := self._forms.of(drawn):
            text += f"; form: {', '.join(forms)}"
        if self._engine is None:
            return Candidate(text)
        prompt_tokens, completion_tokens = (
            sum(numbers) for numbers in zip(*(theme.spent for theme in found), strict=True)
        )
        return Candidate(text, LABEL, self._engine.name, prompt_tokens, completion_tokens)

    async def _theme(self, drawn: Sequence[str], kept: Kept, seed: int, themes: int) -> Theme:
        """What one cluster of n-grams shares, in fewer words the more `themes` there are."""
        terms = self._naming.words(drawn, kept)
        label, spent = await self._label([term.text for term in terms[:LABEL_WORDS]], seed)
        told = [*([label] if label else []), *shared_heads(drawn)[:HEADS]]
        ranked = self._naming.names(drawn, kept, told)
        fits = {name.text: name.fit for name in ranked}
        first = [text for text in dict.fromkeys(told) if fits[text] >= FITTING * ranked[0].fit]
        names = [*first, *self._naming.apart(ranked, max(-(-NAMES // themes) - len(first), 0), first)]
        own = self._naming.apart(terms, TERMS // themes, names) or [f'"{ngram.strip()}"' for ngram in drawn[:TERMS]]
        return Theme(names, own, spent)

    async def summarise(self, drawn: Sequence[str], kept: Kept, seed: int) -> str:
        """The text of `explain` alone."""
        return (await self.explain(drawn, kept, seed)).text

    async def _label(self, words: Sequence[str], seed: int) -> tuple[str, tuple[int, int]]:
        """The language model's label of the n-grams' words, empty where there is none, and the tokens that it took."""
        if self._engine is None or len(words) < 2:
            return "", (0, 0)
        from stages.explain.statistics.label import clean

        prompt = (Message("user", render(LABEL, words=words)),)
        request = Request(prompt, LABEL_TOKENS, temperature=0.0, stop=("\n",), seed=seed)
        try:
            (reply, *_) = await self._engine.complete(request)
        except EngineError:
            return "", (0, 0)
        return clean(reply.text, words), (reply.prompt_tokens, reply.completion_tokens)
