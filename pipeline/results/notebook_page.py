"""A unit as HTML for notebooks: no script, no style sheet, nothing fetched, and colours that suit a dark page as a light one.

Every text is escaped, and colours are translucent, so that text keeps the colour that the notebook gives it.
"""

from collections.abc import Sequence
from html import escape

from pipeline.results.shown_sequence import SCALE, ShownToken, hue, opacity
from pipeline.results.shown_unit import ShownExemplar, ShownExplanation
from pipeline.terminal_text import safe

CONTEXT = 40
"""Tokens on either side of the peak that are shown."""
STEPS = (-SCALE, -SCALE / 2, 0.0, SCALE / 2, SCALE)
"""Values that the key of colours shows."""
NO_FORMULAS = "tex2jax_ignore mathjax_ignore"
"""Classes that keep notebooks from reading text between dollar signs as formulas."""
SMALL = "font-size:85%;opacity:0.85"
PEAK = ";font-weight:bold;text-decoration:underline 2px"
KEY = (
    "Upper part: true activation, where 10 is the unit's largest one. Lower part: simulated from the words. The peak is underlined. "
    "A tooltip has the numbers."
)


def unit_page(
    title: str, statistics: Sequence[str], explanations: Sequence[ShownExplanation], exemplars: Sequence[ShownExemplar]
) -> str:
    """The page of a unit: heading, statistics, explanations with their scores, and exemplars as token heat maps."""
    facts = "".join(f"<div>{_text(line)}</div>" for line in statistics)
    said = "".join(_explanation(one) for one in explanations) or "<li>no explanation</li>"
    key = "".join(_swatch(value) for value in STEPS)
    texts = "".join(_exemplar(one) for one in exemplars) or "<div>no exemplars were recorded in this polarity</div>"
    return (
        f'<div class="{NO_FORMULAS}" style="line-height:1.5;overflow-wrap:anywhere"><h4 style="margin:0.4em 0">{_text(title)}</h4>{facts}'
        f'<ul style="margin:0.6em 0">{said}</ul><div style="{SMALL}">{key} {KEY}</div>{texts}</div>'
    )


def _explanation(shown: ShownExplanation) -> str:
    scores = "".join(f'<div style="{SMALL}">{_text(line)}</div>' for line in shown.scores)
    return (
        f'<li style="margin:0.4em 0"><b>{_text(shown.text)}</b> '
        f'<span style="{SMALL}">{_text(shown.label)}</span>{scores}</li>'
    )


def _exemplar(shown: ShownExemplar) -> str:
    peak = next((place for place, token in enumerate(shown.tokens) if token.is_peak), 0)
    start, stop = max(0, peak - CONTEXT), peak + CONTEXT + 1
    before, after = ("… " if start else "", " …" if stop < len(shown.tokens) else "")
    tokens = "".join(_token(token) for token in shown.tokens[start:stop])
    return (
        f'<div style="margin:0.6em 0"><div style="{SMALL}">{_text(shown.label)}</div>'
        f'<div style="white-space:pre-wrap;line-height:2">{before}{tokens}{after}</div></div>'
    )


def _token(token: ShownToken) -> str:
    values = (("true", token.true), ("simulated", token.simulated))
    numbers = ", ".join(f"{name} {value:.1f}" for name, value in values if value is not None)
    style = f"unicode-bidi:isolate{_background(token)}{PEAK if token.is_peak else ''}"
    return f'<span title="{numbers}" style="{style}">{_text(token.text)}</span>'


def _background(token: ShownToken) -> str:
    """The true colour above the simulated one; nothing where neither shows."""
    if not (opacity(token.true) or opacity(token.simulated)):
        return ""
    halves = f"{_colour(token.true)} 70%,{_colour(token.simulated)} 70%"
    return f";padding:0.2em 0 0.5em;background:linear-gradient({halves});box-decoration-break:clone;-webkit-box-decoration-break:clone"


def _colour(value: float | None) -> str:
    red, green, blue = hue(value)
    return f"rgba({red},{green},{blue},{opacity(value):.3f})"


def _swatch(value: float) -> str:
    return f'<span style="padding:0.1em 0.5em;background:{_colour(value)}">{value:.0f}</span>'


def _text(text: str) -> str:
    """Any text as HTML that shows it and does nothing else."""
    return escape(safe(text), quote=True)
