"""What people see of a sequence: its tokens as harmless text, with true and simulated activations on one scale, and its colours.

The scale runs from -10 to 10, where 10 is the unit's largest activation by absolute value. Simulated activations run from 0 to 10; for
polarity `-` they are shown below zero, as the true ones are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.terminal_text import safe

SCALE = 10.0
LONGEST = 80
"""Characters of a token that are shown."""
ABOVE, BELOW = (230, 120, 0), (40, 120, 255)
"""Colours of SCALE and -SCALE."""
STRONGEST = 0.6
"""Opacity of a colour at the ends of the scale: text of the page's own colour stays readable on it, dark or light."""
FAINTEST = 0.05
"""Share of the scale below which there is no colour."""


@dataclass(frozen=True)
class ShownToken:
    """A token of a sequence."""

    text: str
    """Without control characters and marks of direction, and of bounded length."""
    true: float | None
    """From -SCALE to SCALE; None where no activation counts."""
    simulated: float | None
    is_peak: bool


def shown_sequence(
    tokens: Sequence[str],
    activations: Sequence[float],
    expected: Sequence[float] | None,
    peak: int,
    largest: float,
    polarity: str,
) -> list[ShownToken]:
    """The tokens of an exemplar, ready to be shown.

    Args:
        activations: of each token, NaN where it does not count.
        expected: what a simulator expects, 0 to 10; None where nothing was simulated.
        peak: position of the largest activation.
        largest: the unit's largest activation by absolute value, which is SCALE on the scale.
    """
    factor, sign = (SCALE / largest if largest > 0 else 0.0), (-1.0 if polarity == "-" else 1.0)
    return [
        ShownToken(
            shortened(token),
            _clipped(factor * activations[place]) if place < len(activations) else None,
            _clipped(sign * expected[place]) if expected is not None and place < len(expected) else None,
            place == peak,
        )
        for place, token in enumerate(tokens)
    ]


def _clipped(value: float) -> float | None:
    return max(-SCALE, min(SCALE, float(value))) if math.isfinite(value) else None


def shortened(token: str) -> str:
    """A token as safe text of bounded length."""
    return safe(token) if len(token) <= LONGEST else f"{safe(token[:LONGEST])}… ({len(token):,} characters)"


def opacity(value: float | None) -> float:
    """How strongly a value of the scale is coloured, from 0 to STRONGEST."""
    share = 0.0 if value is None else abs(value) / SCALE
    return STRONGEST * share if share >= FAINTEST else 0.0


def hue(value: float | None) -> tuple[int, int, int]:
    """The colour of a value's sign, as red, green and blue from 0 to 255."""
    return BELOW if value is not None and value < 0 else ABOVE


def largest_of(peaks: Iterable[float]) -> float:
    """The largest absolute value of the activations at some peaks; 0 where none is finite."""
    return max((abs(float(peak)) for peak in peaks if math.isfinite(peak)), default=0.0)
