"""What a prompt says of a unit beside its marked texts: what a head carries where, which tokens an activation needs, and
which tokens the unit makes more likely.

Shapes: T tokens of a text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.evidence import Activations, Detail, Evidence, Pair
from stages.explain.highlights import Highlights
from stages.token_lines import show_token

PAIRS = 3
"""Pairs shown of a text at most."""
NEEDED = 3
"""Tokens shown at most on which the activation at a text's peak depends."""
LEAST = 0.2
"""A pair or a token is shown from this share of the text's strongest on."""


@dataclass(frozen=True)
class NotedText:
    """A text as a prompt shows it, with what stands below it."""

    text: str
    """With its marks; see `marked_text`."""
    pairs: list[str]
    """Such as `" river" -> " bank"`, the strongest first."""
    needs: list[str]
    """Tokens as `token_names` has them, the most important first."""


@dataclass(frozen=True)
class Notes:
    """All texts of a unit, and the tokens that it makes more likely."""

    texts: list[NotedText]
    promoted: list[str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of `pairs`, `needs` and `promoted` there are."""
        there = {
            "pairs": any(text.pairs for text in self.texts),
            "needs": any(text.needs for text in self.texts),
            "promoted": bool(self.promoted),
        }
        return tuple(kind for kind, is_there in there.items() if is_there)

    @property
    def shown(self) -> list[NotedText] | list[str]:
        """The texts as values of a prompt: bare where there is nothing beside them."""
        return self.texts if self.kinds else [text.text for text in self.texts]

    @property
    def values(self) -> dict[str, list[str]]:
        """The other values of a prompt that knows notes."""
        return {"promoted": self.promoted} if self.kinds else {}


def take_notes(evidence: Evidence, highlights: Highlights) -> Notes:
    """What is known of the highlighted texts, and of the unit by its weights."""
    texts = []
    for text, exemplar in zip(highlights.texts, highlights.shown, strict=True):
        detail = evidence.details.get(exemplar.seq_id, Detail())
        names = token_names(exemplar.tokens)
        needs = [] if detail.attribution is None else needed(detail.attribution, exemplar.peak)
        lines = [f"{names[source]} -> {names[to]}" for source, to in strongest(detail.pairs or ())]
        texts.append(NotedText(text, lines, [names[place] for place in needs]))
    return Notes(texts, [quoted(token) for token in evidence.promoted])


def quoted(token: str) -> str:
    """A token in quotation marks, as `show_token` shows it; a quotation mark of its own is `\\"`."""
    return '"' + show_token(token).replace('"', '\\"') + '"'


def token_names(tokens: Sequence[str]) -> list[str]:
    """A name for each of T tokens, none twice: the token in quotation marks, and `#2` behind the second of its kind.

    A token that the text holds once has no number.
    """
    counts = Counter(tokens)
    seen: Counter[str] = Counter()
    names = []
    for token in tokens:
        seen[token] += 1
        names.append(quoted(token) + (f" #{seen[token]}" if counts[token] > 1 else ""))
    return names


def strongest(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """(from, to) of the strongest pairs that are above zero, the strongest first; between equals as they come."""
    ordered = sorted((pair for pair in pairs if pair.value > 0), key=lambda pair: -pair.value)[:PAIRS]
    return [(source, to) for source, to, value in ordered if value >= LEAST * ordered[0][2]]


def needed(attribution: Activations, peak: int) -> list[int]:
    """Positions that matter most to the activation at the peak, without the peak itself, the most important first.

    Only what is above zero counts, and what has a share LEAST of the highest attribution, the peak's included.
    """
    values = np.nan_to_num(attribution, nan=0.0, posinf=0.0, neginf=0.0)  # (T,)
    highest = float(values.max(initial=0.0))
    order = [place for place in np.argsort(-values, kind="stable").tolist() if place != peak and values[place] > 0]
    return [place for place in order[:NEEDED] if values[place] >= LEAST * highest]
