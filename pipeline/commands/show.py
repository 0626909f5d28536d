"""A unit on the terminal: its explanations with scores and controls, its tokens, and its strongest exemplars in lines around the peak.

True activations stand as numbers above the words, simulated ones below them; 10 is the unit's largest activation. Colours say the same
again, where the output is a terminal and NO_COLOR is not set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from pipeline.errors import UserError
from pipeline.results.run_folder import open_run
from pipeline.results.shown_sequence import ShownToken, hue, opacity
from pipeline.results.shown_unit import ShownExplanation
from pipeline.results.unit_view import UnitView
from pipeline.terminal_text import safe

WIDE = 120
"""Columns where the output is no terminal."""
NAMES = ("true", "", "simulated")
MARGIN = max(map(len, NAMES)) + 2


def show_unit(root: Path, module: str, index: int, polarity: str, count: int) -> None:
    """Print a unit of a run.

    Args:
        count: exemplars that are shown.

    Raises:
        UserError: no such run or unit, or the count is below 0.
    """
    if count < 0:
        raise UserError(f"--exemplars {count}; give 0 or more")
    unit = open_run(root).unit(module, index, polarity)
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    for line in unit_lines(unit, count, console.width):
        console.print(line, soft_wrap=True)


def unit_lines(unit: UnitView, count: int, width: int) -> Iterator[Text]:
    """The lines of a unit; those of exemplars are at most `width` columns wide, others wrap."""
    yield Text(safe(unit.title), style="bold")
    yield from (Text(safe(line)) for line in unit.shown_statistics())
    for explanation in unit.shown_explanations():
        yield from _said(explanation)
    exemplars = unit.shown_exemplars(count)
    if not exemplars and count:
        yield Text("\nno exemplars were recorded in this polarity")
    for exemplar in exemplars:
        yield Text(f"\n{safe(exemplar.label)}", style="dim")
        yield from exemplar_lines(exemplar.tokens, width)


def _said(explanation: ShownExplanation) -> Iterator[Text]:
    yield Text()
    yield Text.assemble((safe(explanation.text), "bold"), f"   [{safe(explanation.label)}]")
    yield from (Text(f"  {safe(line)}") for line in explanation.scores)


@dataclass(frozen=True)
class _Cell:
    """A token with room for its numbers."""

    token: ShownToken
    number: str
    simulated: str
    indent: int
    """Spaces that the token begins with; numbers stand over the letters behind them."""

    @property
    def width(self) -> int:
        numbers = max(len(self.number), len(self.simulated))
        return max(cell_len(self.token.text), self.indent + numbers if numbers else 0)

    def line(self, text: str) -> str:
        return text + " " * (self.width - cell_len(text))


def exemplar_lines(tokens: Sequence[ShownToken], width: int) -> list[Text]:
    """The tokens around the peak, which begins in the middle, with a line of numbers above, and one below where something was simulated."""
    cells = [_cell(token) for token in tokens]
    peak = next((place for place, token in enumerate(tokens) if token.is_peak), 0)
    room = max(width - MARGIN, 20)
    before = _fitting([cell.width for cell in reversed(cells[:peak])], room // 2)
    after = max(1, _fitting([cell.width for cell in cells[peak:]], room - room // 2))
    shown = cells[peak - before : peak + after]
    start = room // 2 - sum(cell.width for cell in shown[:before])
    lines = [Text(name.ljust(MARGIN) + " " * start, end="") for name in NAMES]
    for cell in shown:
        lines[0].append(cell.line(" " * cell.indent + cell.number))
        lines[1].append(cell.line(cell.token.text), _style(cell.token.true, cell.token.is_peak))
        lines[2].append(cell.line(" " * cell.indent + cell.simulated), _style(cell.token.simulated))
    return lines if any(token.simulated is not None for token in tokens) else lines[:2]


def _cell(token: ShownToken) -> _Cell:
    indent = len(token.text) - len(token.text.lstrip(" "))
    return _Cell(token, _number(token.true), _number(token.simulated), indent if indent < len(token.text) else 0)


def _number(value: float | None) -> str:
    return "" if value is None or round(value) == 0 else str(round(value))


def _fitting(widths: Sequence[int], room: int) -> int:
    """How many of some widths, from the first on, fit beside each other."""
    used = 0
    for count, width in enumerate(widths):
        used += width
        if used > room:
            return count
    return len(widths)


def _style(value: float | None, is_peak: bool = False) -> Style:
    """Black on the value's colour over white, as on the pages; the peak is bold and underlined."""
    marked = Style(bold=True, underline=True) if is_peak else Style()
    share = opacity(value)
    if not share:
        return marked
    red, green, blue = (round(255 + (part - 255) * share) for part in hue(value))
    return marked + Style(color="black", bgcolor=Color.from_rgb(red, green, blue))
