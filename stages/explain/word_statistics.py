"""The embedded default explainer: statistics of words, put into a sentence."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.prompts import Prompt
from stages.english.text import split_words
from stages.english.word_classes import FUNCTION_WORDS
from stages.evidence import Evidence
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.features import LEXICAL, RULES, WORD, Observations, observe
from stages.explain.findings import Finding, compose, select
from stages.methods import Method

if TYPE_CHECKING:
    from pipeline.subjects.loading.model_loading import LoadedModel
    from stages.explain.label import Label

LABEL = Prompt("explain/label.v1")
MOST_FINDINGS = 12
MOST_RULES = 4
LABELLED_WORDS = 6
"""Words that a label is made from."""
LEAST_WORDS = 3
"""Fewer words than this are not labelled."""
LEAST_FIT = 1.2
"""Nats a token by which each half of the words must favour their label; see label.Label."""
OWN_SPELLING = 0.2
"""A word is written in lower case if that spelling has this share of the mass of the heaviest spelling."""


class StatisticsExplainer:
    """Explains a unit by the words and rules that account for most of its activation.

    Args:
        language_model: gives the words a label ("words about music"); None leaves labels out.
        candidates: how many candidates `explain` gives at most.
        prompt: that of the label.
    """

    def __init__(self, language_model: "LoadedModel | None", candidates: int, prompt: Prompt = LABEL) -> None:
        self._candidates = candidates
        self._labeller = None
        if language_model is not None:
            from stages.explain.label import Labeller

            self._labeller = Labeller(language_model, prompt)

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:  # noqa: ARG002 - nothing is drawn at random
        """Candidates in differing styles: words and rules with the label; words only; rules only; the label only.

        Raises:
            ExplanationError: the unit never fires or never changes in the evidence, or no word carries its activation.
        """
        observed = observe(evidence)
        spellings = spelled(evidence)
        found = select(observed, LEXICAL + RULES, MOST_FINDINGS)
        label = self._label(observed, spellings)
        made = [
            self._candidate(compose(found, spellings, label.text if label else ""), label),
            self._candidate(compose(select(observed, LEXICAL, MOST_FINDINGS), spellings), None),
            self._candidate(compose(select(observed, RULES, MOST_RULES), spellings), None),
            self._candidate(label.text if label else "", label),
        ]
        differing: dict[str, Candidate] = {}
        for candidate in made:
            if candidate.text:
                differing.setdefault(candidate.text, candidate)
        if not differing:
            raise ExplanationError(
                f"no word or rule carries the activation of unit {evidence.index} of {evidence.module} ({evidence.polarity})"
            )
        return list(differing.values())[: self._candidates]

    def _label(self, observed: Observations, spellings: dict[str, str]) -> "Label | None":
        """A label for the words that carry the activation, if there is one that they favour."""
        if self._labeller is None:
            return None
        words = label_words(select(observed, [WORD], MOST_FINDINGS), spellings)
        label = self._labeller.label(words) if len(words) >= LEAST_WORDS else None
        return label if label is not None and label.fit >= LEAST_FIT else None

    def _candidate(self, text: str, label: "Label | None") -> Candidate:
        if label is None or self._labeller is None:
            return Candidate(text)
        return Candidate(
            text, self._labeller.prompt.id, self._labeller.name, label.prompt_tokens, label.completion_tokens
        )


def label_words(findings: Sequence[Finding], spellings: dict[str, str]) -> list[str]:
    """The strongest words that have a meaning of their own, at most LABELLED_WORDS of them."""
    names = [finding.feature.text for finding in sorted(findings, key=lambda finding: -finding.strength)]
    meant = [name for name in names if name.isalpha() and len(name) > 2 and name not in FUNCTION_WORDS]
    return [spellings.get(name, name) for name in meant[:LABELLED_WORDS]]


def spelled(evidence: Evidence) -> dict[str, str]:
    """How each word is best written, by the word in lower case: as it stands where the unit fires most.

    In lower case where the unit fires on that spelling too, so that "The" at the start of a sentence is "the".
    """
    mass: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for exemplar in evidence.exemplars:
        for word in split_words(exemplar.tokens):
            values = exemplar.activations[word.start : word.stop]
            if word.text and np.isfinite(values).any():
                mass[word.text.lower()][word.text] += max(float(np.nanmax(values)), 0.0)
    chosen = {}
    for name, spellings in mass.items():
        best = max(sorted(spellings), key=lambda spelling: spellings[spelling])
        own = name in spellings and spellings[name] >= OWN_SPELLING * spellings[best]
        chosen[name] = name if own else best
    return chosen


METHOD = Method(
    "statistics find the words and rules that carry the activation; a language model, where there is one, labels the words",
    lambda settings, model, prompts: StatisticsExplainer(model, settings.candidates, prompts[0]),
    model="inside",
    prompts=(LABEL.name,),
)
