"""Says what n-grams share without a language model: words that they are like in meaning, a head of a thesaurus, and their forms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import EngineError, Message, Request
from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_source import resolve_model
from stages.asking import Asker
from stages.english.forms import FORMS
from stages.english.text import Text
from stages.english.thesaurus import shared_heads, thesaurus_version
from stages.explain.explain_units import Candidate, ExplanationError
from stages.methods import Method
from stages.sasc import Sasc
from stages.sasc.explain_ngrams import Kept
from stages.sasc.naming import Naming

LABEL = Prompt("explain/label.v1")
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
FORM_SHARE = 0.7
"""Share of the n-grams that have to have a form before it is named."""
FORM_TIMES = 3.0
"""How many times as large that share has to be as in running text."""
FORM_LEAST = 5
"""N-grams without which no form is named."""
FORMS_NAMED = 2
"""Forms named at most."""
ZIPF_RANK = 2.7
"""What Zipf's law adds to the rank of a word (Mandelbrot 1953)."""
_PIECE = re.compile(r" ?(?:(?:[^\W_]|['’])+|[\W_])")


@dataclass(frozen=True)
class Theme:
    """What some n-grams share."""

    names: list[str]
    words: list[str]
    """Words of the n-grams that stand for it, or the n-grams."""
    label: "Labelled"


@dataclass(frozen=True)
class Labelled:
    """A language model's label of some words, and what it took."""

    text: str = ""
    """Empty where there is none."""
    asked: str = ""
    reply: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class EmbeddedSummariser:
    """Names what the n-grams are most like in meaning, with the words of theirs that stand for it best.

    With a language model its label of those words comes first, and then the head of the thesaurus that they share; each where it fits
    about as well as the names. N-grams of two unlike meanings are named apart, unless a name of the one says what a name of the other
    does: what two clusters have a name for is one theme.
    """

    def __init__(self, naming: Naming, asker: Asker | None = None, prompt: Prompt = LABEL) -> None:
        """prompt: that of the label."""
        self._naming = naming
        self._forms = SharedForms(naming.common, naming.vocabulary)
        self._asker, self._prompt = asker, prompt

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
        if self._asker is None:
            return Candidate(text)
        labels = [theme.label for theme in found]
        tokens = (sum(one.prompt_tokens for one in labels), sum(one.completion_tokens for one in labels))
        asked, reply = (
            "\n\n".join(filter(None, part)) for part in zip(*((one.asked, one.reply) for one in labels), strict=True)
        )
        return Candidate(text, self._prompt.id, self._asker.engine.name, *tokens, asked=asked, reply=reply)

    async def _theme(self, drawn: Sequence[str], kept: Kept, seed: int, themes: int) -> Theme:
        """What one cluster of n-grams shares, in fewer words the more `themes` there are."""
        terms = self._naming.words(drawn, kept)
        label = await self._label([*terms][:LABEL_WORDS], seed)
        told = [*([label.text] if label.text else []), *shared_heads(drawn)[:HEADS]]
        fits = self._naming.names(drawn, kept, told)
        first = [text for text in dict.fromkeys(told) if fits[text] >= FITTING * max(fits.values())]
        names = [*first, *self._naming.apart(fits, max(-(-NAMES // themes) - len(first), 0), first)]
        own = self._naming.apart(terms, TERMS // themes, names) or [f'"{ngram.strip()}"' for ngram in drawn[:TERMS]]
        return Theme(names, own, label)

    async def _label(self, words: Sequence[str], seed: int) -> Labelled:
        """The language model's label of the n-grams' words."""
        if self._asker is None or len(words) < 2:
            return Labelled()
        from stages.explain.word_statistics import behind_examples, clean

        prompt = (Message("user", self._prompt.render(words=words)),)
        request = Request(prompt, LABEL_TOKENS, temperature=0.0, stop=("\n",), seed=seed)
        try:
            (reply, *_) = await self._asker.engine.complete(request)
        except EngineError:
            return Labelled()
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        return Labelled(clean(reply.text, words), behind_examples(prompt[0].content), reply.text, *tokens)


class SharedForms:
    """Finds forms that n-grams share, of all those that the word simulator knows, by its names for them."""

    def __init__(self, common: Sequence[str], vocabulary: frozenset[str]) -> None:
        """
        Args:
            common: the commonest first; they and Zipf's law tell how usual a form is in running text.
            vocabulary: English words in lower case, by which inflections are told.
        """
        self._vocabulary = vocabulary
        known = common or ["the"]
        self._usual = np.average(self._have(known), axis=0, weights=1 / (np.arange(len(known)) + ZIPF_RANK))  # (forms,)

    def of(self, ngrams: Sequence[str]) -> list[str]:
        """Forms that at least FORM_SHARE of the n-grams have, and FORM_TIMES as many as in running text; the least expected one first."""
        if len(ngrams) < FORM_LEAST:
            return []
        share = self._have(ngrams).mean(axis=0)
        words = np.asarray([len(ngram.split()) for ngram in ngrams])
        expected = (1 - (1 - self._usual) ** words[:, None]).mean(axis=0)
        order = np.argsort(expected - share, kind="stable")[:FORMS_NAMED]
        names = list(FORMS)
        return [names[place] for place in order if share[place] >= max(FORM_SHARE, FORM_TIMES * expected[place])]

    def _have(self, ngrams: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, forms) 1 where a word of an n-gram has the form, else 0."""
        texts = [Text.read(_PIECE.findall(" ".join(ngram.split()))) for ngram in ngrams]
        found = [[(form(text, self._vocabulary) > 0.5).any() for form in FORMS.values()] for text in texts]
        return np.asarray(found, dtype=np.float64)


def _build(sasc: Sasc, asker: Asker | None, prompts: Sequence[Prompt]) -> EmbeddedSummariser:
    from pipeline.subjects.embedder import load_embedder

    return EmbeddedSummariser(Naming(load_embedder(sasc.embedder, sasc.device)), asker, prompts[0])


def _settings(sasc: Sasc) -> dict[str, Any]:
    revision = resolve_model(sasc.embedder).revision
    return {"embedder": sasc.embedder, "revision": revision, "thesaurus": thesaurus_version()}


METHOD = Method(
    "words that the n-grams are like in meaning, with a language model's label where there is one",
    _build,
    model="optional",
    prompts=(LABEL.name,),
    settings=_settings,
    reply=lambda *_: "life in towns and villages",
)
