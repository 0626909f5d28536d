"""Explains a unit by showing a language model its strongest texts, with the tokens marked that it responds to.

`max_activation` shows these alone, `contrastive` texts like them beside them to which the unit does not respond.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.evidence import Activations, Detail, Evidence, Exemplar, Pair
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.question import Part, ask_in_words, few_shot
from stages.few_shot import marked_text, show_token
from stages.methods import Method
from stages.settings import Explain

EXEMPLARS = 20
"""Exemplars of the top band at most."""
SHARES = (0.6, 0.5, 0.4, 0.3, 0.2)
"""Thresholds of marking, as shares of the highest activation; the next is tried where too few tokens are marked."""
ENOUGH = 6
"""Different tokens that should be marked; capitals and white space around them make no difference."""
OTHERS = 5
"""Texts shown on which the unit stays low, at most."""
LOW = SHARES[-1]
"""A unit stays low on a text whose activations are all below this share of the highest."""
PRESENT = 0.05
"""Least weight of a shared token, as a share of the highest activation."""
PAIRS = 3
"""Pairs shown below a text, at most."""
NEEDED = 3
"""Tokens shown on which the activation at a text's peak depends, at most."""
LEAST_SHARE = 0.2
"""A pair or a token is shown if it has this share of the strength of the text's strongest."""


@dataclass(frozen=True)
class Highlights:
    """What is to be shown of a unit."""

    texts: list[str]
    """The exemplars that have a marked token, the strongest first, on one line each; see `marked_text`."""
    shown: list[Exemplar]
    """The exemplars of `texts`."""
    highest: float
    """The highest activation of the top band."""
    marked_from: float
    """Tokens are marked from this activation on."""


def highlight(evidence: Evidence) -> Highlights:
    """The strongest exemplars with their strongest tokens marked.

    A token is marked from a share of the highest activation on: the first of SHARES that marks ENOUGH different tokens, or the
    last. Exemplars without a marked token are left out.

    Raises:
        ExplanationError: no activation above zero.
    """
    exemplars = evidence.band("top")[:EXEMPLARS]
    values = np.nan_to_num(np.concatenate([np.zeros(0), *(exemplar.activations for exemplar in exemplars)]))  # (A,)
    highest = float(values.max(initial=0.0))
    if highest <= 0:
        raise ExplanationError("no exemplar of the explain split has an activation above zero")
    tokens = [token for exemplar in exemplars for token in exemplar.tokens]
    for share in SHARES:
        marked = values >= share * highest
        if len({_folded(tokens[place]) for place in np.flatnonzero(marked).tolist()}) >= ENOUGH:
            break
    ends = np.cumsum([len(exemplar.tokens) for exemplar in exemplars])
    rows = [row.tolist() for row in np.split(marked, ends[:-1])]  # N of (T,)
    shown = [(exemplar, row) for exemplar, row in zip(exemplars, rows, strict=True) if any(row)]
    texts = [marked_text(exemplar.tokens, row) for exemplar, row in shown]
    return Highlights(texts, [exemplar for exemplar, _ in shown], highest, share * highest)


def look_alikes(evidence: Evidence, highlights: Highlights) -> list[str]:
    """Texts of the other bands on which the unit stays low, those most like the shown exemplars first.

    Each different token that a text shares with the exemplars counts by its highest activation there, PRESENT at least,
    divided by the number of these texts that hold it: so texts come first that hold the very tokens the unit responds to
    elsewhere, and common tokens weigh little. Among equals the sequence with the lower number is first. There is none
    where the unit is low on no text.
    """
    low = {
        exemplar.seq_id: exemplar
        for exemplar in evidence.exemplars
        if exemplar.band != "top" and exemplar.highest < LOW * highlights.highest
    }
    words = {seq_id: set(map(_folded, exemplar.tokens)) for seq_id, exemplar in low.items()}
    spread = Counter(itertools.chain.from_iterable(words.values()))
    heat = _heat(highlights)

    def likeness(seq_id: int) -> float:
        return math.fsum(heat[word] / spread[word] for word in words[seq_id] & heat.keys())

    chosen = sorted(low, key=lambda seq_id: (-likeness(seq_id), seq_id))[:OTHERS]
    return [marked_text(low[seq_id].tokens, [False] * len(low[seq_id].tokens)) for seq_id in chosen]


def hard_negatives(evidence: Evidence, highlights: Highlights) -> list[str]:
    """The unit's hard negatives, one of each kind in turn, the hardest of each kind first.

    Left out are those with a token that is marked where it stands in an exemplar.
    """
    low = [one for one in evidence.negatives if one.highest < highlights.marked_from]
    kinds = [[one for one in low if one.band == kind] for kind in dict.fromkeys(one.band for one in low)]
    in_turn = [one for rank in itertools.zip_longest(*kinds) for one in rank if one is not None]
    return [marked_text(one.tokens, [False] * len(one.tokens)) for one in in_turn[:OTHERS]]


def _heat(highlights: Highlights) -> dict[str, float]:
    """The highest activation of each token in the shown exemplars, in shares of the highest, PRESENT at least."""
    shares = np.concatenate([exemplar.activations for exemplar in highlights.shown]) / highlights.highest
    words = [_folded(token) for exemplar in highlights.shown for token in exemplar.tokens]
    heat = dict.fromkeys(words, PRESENT)
    for place in np.flatnonzero(shares > PRESENT).tolist():
        heat[words[place]] = max(heat[words[place]], float(shares[place]))
    return heat


def _folded(token: str) -> str:
    return token.strip().lower()


@dataclass(frozen=True)
class NotedText:
    """A text as a prompt shows it, with what stands below it."""

    text: str
    """With its marks; see `marked_text`."""
    pairs: list[str]
    """Such as `" river" -> " bank"`, the strongest first."""
    needs: list[str]
    """Tokens as `token_names` has them, the most important first."""


def take_notes(evidence: Evidence, highlights: Highlights) -> tuple[list[NotedText], tuple[str, ...]]:
    """What is known of the highlighted texts; and which of `pairs`, `needs` and `promoted` there are of the unit."""
    texts = []
    for text, exemplar in zip(highlights.texts, highlights.shown, strict=True):
        detail = evidence.details.get(exemplar.seq_id, Detail())
        names = token_names(exemplar.tokens)
        needs = [] if detail.attribution is None else needed(detail.attribution, exemplar.peak)
        lines = [f"{names[source]} -> {names[to]}" for source, to in top_pairs(detail.pairs or ())]
        texts.append(NotedText(text, lines, [names[place] for place in needs]))
    there = {
        "pairs": any(text.pairs for text in texts),
        "needs": any(text.needs for text in texts),
        "promoted": bool(evidence.promoted),
    }
    return texts, tuple(kind for kind, is_there in there.items() if is_there)


def quoted(token: str) -> str:
    """A token in quotation marks, as `show_token` shows it; a quotation mark of its own is `\\"`."""
    return '"' + show_token(token).replace('"', '\\"') + '"'


def token_names(tokens: Sequence[str]) -> list[str]:
    """A name for each of T tokens, none twice: the token in quotation marks, and `#2` behind the second of its kind.

    A token that the text holds once has no number.
    """
    counts, seen = Counter(tokens), defaultdict[str, "itertools.count[int]"](lambda: itertools.count(1))
    return [quoted(token) + (f" #{next(seen[token])}" if counts[token] > 1 else "") for token in tokens]


def top_pairs(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """(from, to) of the strongest pairs that are above zero, the strongest first; between equals as they come."""
    ordered = sorted((pair for pair in pairs if pair.value > 0), key=lambda pair: -pair.value)[:PAIRS]
    return [(source, to) for source, to, value in ordered if value >= LEAST_SHARE * ordered[0][2]]


def needed(attribution: Activations, peak: int) -> list[int]:
    """Positions that matter most to the activation at the peak, without the peak itself, the most important first.

    Only those above zero count that have LEAST_SHARE of the highest attribution, which may be the peak's.
    """
    values = np.nan_to_num(attribution, nan=0.0, posinf=0.0, neginf=0.0)  # (T,)
    highest = float(values.max(initial=0.0))
    order = [place for place in np.argsort(-values, kind="stable").tolist() if place != peak and values[place] > 0]
    return [place for place in order[:NEEDED] if values[place] >= LEAST_SHARE * highest]


async def by_marked_texts(
    settings: Explain, asker: Asker, prompts: Sequence[Prompt], evidence: Evidence, seed: int, *, contrast: bool = False
) -> list[Candidate]:
    """Asks what the marked tokens have in common, and, where there are counter-examples, what nothing in these has.

    A prompt that does not fit the model's context loses counter-examples, the least like first, then few-shot neurons,
    the last first, and then exemplars, the weakest first.

    Args:
        prompts: two: for units of which only marked texts are known, and for those of which more is; see `take_notes`.
        contrast: whether counter-examples are shown. A unit that is low on no text of its evidence is asked about without any.
    """
    evidence = evidence.around(settings.context)
    highlights = highlight(evidence)
    noted, kinds = take_notes(evidence, highlights)
    prompt = prompts[1 if kinds else 0]
    parts = [few_shot(prompt), Part("exemplar", noted if kinds else highlights.texts, "texts", least=1)]
    if contrast:
        find = hard_negatives if settings.negatives == "hard" else look_alikes
        parts.insert(0, Part("counter-example", find(evidence, highlights), "others"))
    values = {"promoted": [quoted(token) for token in evidence.promoted]} if kinds else {}
    return await ask_in_words(asker, settings, prompt, parts, seed, kinds, **values)


MAX_ACTIVATION = Method(
    "a language model is shown the strongest texts with the tokens marked that the unit responds to",
    lambda *given: partial(by_marked_texts, *given),
    prompts=("explain/max_activation.v1", "explain/max_activation.v2"),
)
CONTRASTIVE = Method(
    "as max_activation, with texts beside them that look alike and that the unit does not respond to",
    lambda *given: partial(by_marked_texts, *given, contrast=True),
    prompts=("explain/contrastive.v1", "explain/contrastive.v2"),
)
