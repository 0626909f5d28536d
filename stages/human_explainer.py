"""Explanations written by hand, as explainers of a run.

The first one of each unit is that of the explainer `human`, the second one of a unit that of `human-2`, and so on, so that none
competes with another. In tables all of them have the explainer `human`, and candidates count them.
"""

import re
from typing import Any

import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.execution.stage import Methods, Unit
from pipeline.storage.by_hand import WrittenExplanation, read_by_hand
from stages.explain import HUMAN
from stages.settings import Explain


def round_of(explainer: str) -> int | None:
    """Which of the explanations of a unit an explainer stands for, from 0 on; None for one that is not by hand."""
    found = re.fullmatch(rf"{HUMAN}(?:-([1-9]\d*))?", explainer)
    return None if found is None else int(found[1] or 1) - 1


def explainers(config: RunConfig) -> list[Methods]:
    """Those of the run file, and those of explanations that were saved by hand."""
    counts: dict[Unit, int] = {}
    for one in read_by_hand(config.root):
        unit = (one.module, one.polarity, one.index)
        counts[unit] = counts.get(unit, 0) + 1
    by_hand = [HUMAN if number == 0 else f"{HUMAN}-{number + 1}" for number in range(max(counts.values(), default=0))]
    return [{"explainer": name} for name in (*config[Explain].names, *by_hand)]


def written(config: RunConfig) -> dict[Unit, WrittenExplanation] | None:
    """By unit what was written, where the explainer of the run file is one by hand; else None."""
    if (wanted := round_of(config[Explain].name)) is None:
        return None
    by_unit: dict[Unit, list[WrittenExplanation]] = {}
    for one in read_by_hand(config.root):
        by_unit.setdefault((one.module, one.polarity, one.index), []).append(one)
    return {unit: found[wanted] for unit, found in by_unit.items() if wanted < len(found)}


def of_explainer(name: str) -> Any:
    """The expression for the rows of an explainer, in tables with the columns of explanations."""
    wanted = round_of(name)
    if wanted is None:
        return pc.field("explainer") == name
    return (pc.field("explainer") == HUMAN) & (pc.field("candidate") == wanted)


def controls_by(config: RunConfig, methods: Methods) -> str:
    """The explainer whose explanations of other units are the controls: the same one, or the first of the run file where that is
    by hand, as people explain few units."""
    explainer = methods["explainer"]
    return explainer if round_of(explainer) is None else config[Explain].names[0]
