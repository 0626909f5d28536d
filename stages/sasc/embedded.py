"""Says what n-grams share without a language model: names of concepts, words that stand for them, and shared forms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.llm.engine import Engine, EngineError, Message, Request
from pipeline.prompts import render
from stages.explain.base import Candidate, ExplanationError
from stages.sasc.naming import Named, Naming
from stages.sasc.surface import shared_forms

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

LABEL = "explain/label.v1"
LABEL_TOKENS = 10
LABEL_WORDS = 8
TERMS = 4
"""Words of the n-grams that an explanation shows at most."""
SECOND = 0.75
"""Fit of the second name, as a share of the first's, with which it is named too."""
WEAK = 0.9
"""Fit below which no name is given: a shared form, or else the strongest n-grams, say more."""


class EmbeddedSummariser:
    """Names the concept that the n-grams are most like in meaning, with the words of theirs that are most like it.

    With a language model its label of those words is one more name, used where it fits as well as the others.
    """

    name = "sasc_embedded"

    def __init__(self, embedder: "Embedder", engine: Engine | None = None) -> None:
        self._naming = Naming(embedder)
        self._engine = engine

    async def explain(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], seed: int) -> Candidate:
        """See `Summariser`; the seed takes no part.

        Raises:
            ExplanationError: there are no n-grams.
        """
        if not drawn:
            raise ExplanationError("there are no n-grams to explain")
        ranked = self._naming.names(drawn, kept)
        label, spent = await self._label(ranked[0].text, drawn, seed)
        if label:
            ranked = self._naming.names(drawn, kept, [label])
        text = self._sentence(ranked, drawn)
        if self._engine is None:
            return Candidate(text)
        return Candidate(text, LABEL, self._engine.name, *spent)

    async def summarise(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], seed: int) -> str:
        """The text of `explain` alone."""
        return (await self.explain(drawn, kept, seed)).text

    def _sentence(self, ranked: Sequence[Named], drawn: Sequence[str]) -> str:
        forms = shared_forms(drawn, self._naming.vocabulary)
        first, second = ranked[0], ranked[1]
        if first.fit < WEAK:
            with_forms = f"with {' and '.join(forms)}, " if forms else ""
            return f"phrases {with_forms}such as {_quoted(drawn[:TERMS])}"
        name = first.text
        if second.fit >= SECOND * first.fit:
            name += f" and {second.text}" if " and " not in name else f", {second.text}"
        terms = [word for word, _ in self._naming.words(first.text, drawn)][:TERMS]
        shown = f": words such as {', '.join(terms)}" if len(terms) > 1 else f", as in {_quoted(drawn[:TERMS])}"
        return name + shown + (f"; with {' and '.join(forms)}" if forms else "")

    async def _label(self, name: str, drawn: Sequence[str], seed: int) -> tuple[str, tuple[int, int]]:
        """The language model's label of the n-grams' words, empty where there is none, and the tokens that it took."""
        words = [word for word, _ in self._naming.words(name, drawn)][:LABEL_WORDS]
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


def _quoted(ngrams: Sequence[str]) -> str:
    return ", ".join(f'"{ngram.strip()}"' for ngram in ngrams)
