"""The embedded default explainer: statistics of words, put into a sentence."""

import copy
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


LABEL = Prompt("explain/label.v1")
MOST_FINDINGS = 12
MOST_RULES = 4
LABELLED_WORDS = 6
"""Words that a label is made from."""
LEAST_WORDS = 3
"""Fewer words than this are not labelled."""
LEAST_FIT = 1.2
"""Nats a token by which each half of the words must favour their label; see `Label`."""
OWN_SPELLING = 0.2
"""A word is written in lower case if that spelling has this share of the mass of the heaviest spelling."""
MOST_TOKENS = 10
MOST_WORDS = 7
CONTRASTS = (("red", "seven", "running", "table"), ("of", "house", "quickly", "Peter"))
"""Lists without anything in common; a label that follows them as readily says nothing of the unit's words."""
GENERIC = frozenset(
    {"words", "word", "things", "thing", "terms", "names", "nouns", "verbs", "adjectives", "text", "language"}
)
"""Words that a label needs more than."""
_FORM = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*(?:,? [^\W\d_]+(?:['’-][^\W\d_]+)*)*")


class StatisticsExplainer:
    """Explains a unit by the words and rules that account for most of its activation."""

    def __init__(self, language_model: "LoadedModel | None", candidates: int, prompt: Prompt = LABEL) -> None:
        """language_model: gives the words a label ("words about music") by the prompt; None leaves labels out."""
        self._candidates = candidates
        self._labeller = None if language_model is None else Labeller(language_model, prompt)

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:  # noqa: ARG002 - nothing is drawn at random
        """Candidates in differing styles: words and rules with the label; words only; rules only; the label only.

        Raises:
            ExplanationError: the unit never fires or never changes in the evidence, or no word carries its activation.
        """
        observed = observe(evidence)
        spellings = spelled(evidence)
        found = select(observed, LEXICAL + RULES, MOST_FINDINGS)
        label = self._label(observed, spellings)
        shared = label.text if label else ""
        made = [
            (compose(found, spellings, shared), label),
            (compose(select(observed, LEXICAL, MOST_FINDINGS), spellings), None),
            (compose(select(observed, RULES, MOST_RULES), spellings), None),
            (shared, label),
        ]
        differing: dict[str, Candidate] = {}
        for text, labelled in made:
            differing.setdefault(text, self._candidate(text, labelled))
        differing.pop("", None)
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
        by = self._labeller
        tokens = (label.prompt_tokens, label.completion_tokens)
        return Candidate(text, by.prompt.id, by.name, *tokens, asked=label.asked, reply=label.reply)


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
    best = {name: max(sorted(found), key=lambda spelling: found[spelling]) for name, found in mass.items()}
    own = {name for name, found in mass.items() if name in found and found[name] >= OWN_SPELLING * found[best[name]]}
    return {name: name if name in own else spelling for name, spelling in best.items()}


@dataclass(frozen=True)
class Label:
    """What a list of words has in common."""

    text: str
    fit: float
    """Nats a token by which the words make the label likelier than unrelated words do: each half of them, the lesser."""
    prompt_tokens: int
    completion_tokens: int
    asked: str
    """The prompt behind its examples."""
    reply: str


def behind_examples(prompt: str) -> str:
    """The last paragraph of a prompt that completes a list of examples."""
    return prompt.rsplit("\n\n", 1)[-1]


class Labeller:
    """Labels lists of words; the few-shot part of the prompt is run once."""

    def __init__(self, language_model: "LoadedModel", prompt: Prompt) -> None:
        self.name = language_model.name
        self.prompt = prompt
        self._model: Any = language_model.model
        self._tokenizer: Any = language_model.tokenizer
        self._device = language_model.device
        first, second = self._prompt(["apple"]), self._prompt(["zebra"])
        shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        self._prefix = first[:shared]
        self._cache: Any = None

    def label(self, words: Sequence[str]) -> Label | None:
        """The label that the model gives a list of words, greedily; None where what it writes is no label."""
        import torch

        prompt = self._prompt(words)
        with torch.inference_mode():
            written = self._continue(prompt)
            reply = self._tokenizer.decode(written, skip_special_tokens=True)
            text = clean(reply, words)
            if not text:
                return None
            answer = self._tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            halves = (words[::2], words[1::2] or words)
            odd, even, *others = (self._likelihood(self._prompt(listed), answer) for listed in (*halves, *CONTRASTS))
        fit = min(odd, even) - sum(others) / len(others)
        return Label(
            text, fit, len(prompt), len(written), behind_examples(self.prompt.render(words=list(words))), reply
        )

    def _prompt(self, words: Sequence[str]) -> list[int]:
        return list(self._tokenizer(self.prompt.render(words=list(words)), add_special_tokens=False)["input_ids"])

    def _start(self, prompt: Sequence[int]) -> tuple[Any, list[int]]:
        """A copy of the few-shot part's key-value cache, and the rest of a prompt."""
        if list(prompt[: len(self._prefix)]) != self._prefix:
            return None, list(prompt)
        if self._cache is None:
            self._cache = self._model(self._batch(self._prefix), use_cache=True, logits_to_keep=1).past_key_values
        return copy.deepcopy(self._cache), list(prompt[len(self._prefix) :])

    def _continue(self, prompt: Sequence[int]) -> list[int]:
        """Greedy tokens up to the end of the line."""
        cache, rest = self._start(prompt)
        written: list[int] = []
        while len(written) < MOST_TOKENS:
            output = self._model(self._batch(rest), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            rest = [int(output.logits[0, -1].argmax())]
            if rest[0] == self._tokenizer.eos_token_id or "\n" in self._tokenizer.decode(rest):
                break
            written += rest
        return written

    def _likelihood(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Mean log-probability of an answer's tokens after a prompt, in nats."""
        cache, rest = self._start(prompt)
        ids = self._batch(rest + list(answer))
        output = self._model(ids, past_key_values=cache, logits_to_keep=len(answer) + 1)
        logits = output.logits[0, :-1].float()  # (T, V)
        return float(logits.log_softmax(dim=-1).gather(1, self._batch(answer).T).mean())

    def _batch(self, ids: Sequence[int]) -> Any:
        import torch

        return torch.tensor([list(ids)], device=self._device)  # (1, T)


def clean(written: str, words: Sequence[str]) -> str:
    """A label without what surrounds it; empty if it is not one: too long, repetitive, an echo, or without content."""
    text = re.split(r"[\n.;:(\"“”]", written.strip().strip("\"'“”"))[0].strip(" ,-'\"")
    if not _FORM.fullmatch(text):
        return ""
    parts = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
    given = {word.lower() for word in words}
    repeated = any(parts.count(part) > 1 for part in parts if len(part) > 3)
    content = any(part not in GENERIC and len(part) > 2 for part in parts)
    if len(parts) > MOST_WORDS or repeated or sum(part in given for part in parts) > 1 or not content:
        return ""
    return text[0].lower() + text[1:] if parts[0] in GENERIC else text


METHOD = Method(
    "statistics find the words and rules that carry the activation; a language model, where there is one, labels the words",
    lambda settings, model, prompts: StatisticsExplainer(model, settings.candidates, prompts[0]).explain,
    model="inside",
    prompts=(LABEL.name,),
)
