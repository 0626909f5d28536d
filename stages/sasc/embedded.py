"""Says what n-grams share without a language model: words that they are like in meaning, words of theirs, shared forms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.llm.engine import Engine, EngineError, Message, Request
from pipeline.prompts import render
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
"""Share of the best name's fit with which the language model's label comes first."""


class EmbeddedSummariser:
    """Names what the n-grams are most like in meaning, with the words of theirs that stand for it best.

    With a language model its label of those words comes first, where it fits about as well as the names.
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
        terms = self._naming.words(drawn, kept)
        label, spent = await self._label([term.text for term in terms[:LABEL_WORDS]], seed)
        ranked = self._naming.names(drawn, kept, [label] if label else [])
        best = ranked[0].fit if ranked else 0.0
        first = [name.text for name in ranked if name.text == label and name.fit >= FITTING * best]
        names = [*first, *self._naming.apart(ranked, NAMES - len(first), first)]
        own = self._naming.apart(terms, TERMS, names) or [f'"{ngram.strip()}"' for ngram in drawn[:TERMS]]
        text = f"{', '.join(names)}: as in {', '.join(own)}"
        if forms := self._forms.of(drawn):
            text += f"; form: {', '.join(forms)}"
        return Candidate(text) if self._engine is None else Candidate(text, LABEL, self._engine.name, *spent)

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
