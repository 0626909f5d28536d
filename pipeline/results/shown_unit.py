"""What people see of a unit, in a notebook and in a terminal alike: its explanations with their scores, its exemplars, its statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.results.score_tables import NOT_SELECTED, ScoreTable
from pipeline.results.shown_sequence import ShownToken, largest_of, shortened, shown_sequence

if TYPE_CHECKING:
    import pandas as pd

SHOWN_TOKENS = 12
"""Top tokens that are listed."""
NUMBERS = ("density", "density_negative", "mean", "min", "max", "skewness", "kurtosis")
"""Statistics that are listed."""


@dataclass(frozen=True)
class ShownExplanation:
    """An explanation with its scores. Its texts can hold any character."""

    text: str
    label: str
    """Its explainer and its number as a candidate."""
    scores: list[str]
    """A line for each score: the method, the score with its interval, then the controls."""


@dataclass(frozen=True)
class ShownExemplar:
    """An exemplar with the colours and numbers of its tokens."""

    label: str
    """Its split, its sequence and its largest activation."""
    tokens: list[ShownToken]


def shown_explanations(
    explanations: "pd.DataFrame", scores: "Sequence[tuple[ScoreTable, pd.DataFrame]]"
) -> list[ShownExplanation]:
    """The explanations of a unit: first those with the best scores, last those that lost to another candidate or have no text."""
    found = []
    for row in explanations.to_dict("records"):
        own = [(table, score) for table, rows in scores for score in _of_explanation(rows, row)]
        best = max((score[table.score] for table, score in own if score[table.score] is not None), default=-math.inf)
        text = row["text"] if isinstance(row["text"], str) else f"no explanation ({row['status']}: {row['error']})"
        label = f"{row['explainer']}, candidate {row['candidate']}"
        found.append((best, ShownExplanation(text, label, [score_line(table, score) for table, score in own])))
    return [shown for _, shown in sorted(found, key=lambda one: -one[0])]


def _of_explanation(rows: "pd.DataFrame", explanation: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Rows of scores of one explanation; what could not be computed is None."""
    own = rows[(rows["explainer"] == explanation["explainer"]) & (rows["candidate"] == explanation["candidate"])]
    return [{str(k): None if _is_missing(v) else v for k, v in row.items()} for row in own.to_dict("records")]


def score_line(table: ScoreTable, row: Mapping[str, Any]) -> str:
    """A row of scores in words, such as `word: correlation 0.38 (0.10 to 0.55), correlation_random 0.21`."""
    numbers = {name: row[name] for name in table.numbers if row[name] is not None}
    value, low, high = (numbers.pop(name, None) for name in (table.score, "ci_low", "ci_high"))
    if value is None:
        reason = f": {row['error']}" if row["error"] and row["status"] != NOT_SELECTED else ""
        first = f"{row['status']}{reason}"
    else:
        first = f"{table.score} {_decimals(value)}"
        if low is not None and high is not None:
            first += f" ({_decimals(low)} to {_decimals(high)})"
    method = " ".join(row[name] for name in table.methods if row[name])
    note = [str(row["error"])] if value is not None and row["error"] else []
    line = ", ".join([first, *(f"{name} {_decimals(number)}" for name, number in numbers.items()), *note])
    return f"{method}: {line}" if method else line


def shown_exemplars(exemplars: "pd.DataFrame", chosen: "pd.DataFrame", polarity: str) -> list[ShownExemplar]:
    """Some exemplars of a unit.

    Args:
        exemplars: all that the unit has, which give the scale.
        chosen: those to show.
    """
    largest = largest_of(exemplars["max_activation"])
    return [
        ShownExemplar(
            f"{row['split']}, sequence {row['seq_id']}, peak {row['max_activation']:.3g}",
            shown_sequence(row["tokens"], row["activations"], row["expected"], row["peak"], largest, polarity),
        )
        for row in chosen.to_dict("records")
    ]


def shown_statistics(statistics: Mapping[str, Any], top_tokens: "pd.DataFrame", polarity: str) -> list[str]:
    """What was recorded of a unit, in lines; none where nothing was."""
    numbers = [f"{name} {value:.3g}" for name in NUMBERS if not _is_missing(value := statistics.get(name))]
    tokens = [f"'{shortened(token)}'" for token in top_tokens["token"][:SHOWN_TOKENS]]
    lines = [
        ", ".join(numbers),
        f"{'top' if polarity == '+' else 'bottom'} tokens: {' '.join(tokens)}" if tokens else "",
    ]
    return [line for line in lines if line]


def _decimals(number: float) -> str:
    """Two decimals, and no minus before 0."""
    return f"{round(number, 2) + 0.0:.2f}"


def _is_missing(value: Any) -> bool:
    """Whether a value of a table stands for none."""
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))
