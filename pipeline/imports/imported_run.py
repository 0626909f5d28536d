"""Units that another program has recorded and explained, written as the tables of a run.

Each unit has sequences of its own in the corpus, so that their splits are the unit's. Splits are dealt out (see `deal`), so that what
is scored on is not what the explainer has most likely seen.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.config import RunConfig
from pipeline.execution.stage import Stage
from pipeline.imports import IMPORTED
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, UNITS
from pipeline.storage.footers import footer
from pipeline.storage.shards import publish

Row = dict[str, Any]
UNITS_A_FILE = 256
TABLES = (CORPUS, UNITS, EXEMPLARS, EXPLANATIONS)
DEALT = {"top": ("explain", "select", "report", "report"), "random": ("select", "report", "report")}
"""Splits of a band's sequences by rank, over and over: the order in which OpenAI's code deals its records to train, calibration,
valid and test. What is of another band goes to `explain`, as it is not scored on."""


@dataclass(frozen=True)
class ImportedSequence:
    """A sequence kept for a unit, T tokens long."""

    band: str
    """top, quantile or random."""
    tokens: list[str]
    activations: list[float]
    """(T,) as the model gives them."""


@dataclass(frozen=True)
class ImportedUnit:
    """What another program knows of a unit."""

    module: str
    index: int
    sequences: list[ImportedSequence]
    """Of each band in the order of their ranks."""
    texts: list[str]
    """Its explanations."""
    statistics: Row = field(default_factory=dict)
    """Columns of the table `units`, as far as they are known."""


@dataclass(frozen=True)
class Import:
    """A format."""

    summary: str
    """One line for people."""
    read: Callable[[Path], Iterator[ImportedUnit]]
    """The units of a folder, those of a module in a row. Raises UserError: the folder is not of this format, or a file is broken."""


def write_tables(
    units: Iterable[ImportedUnit], root: Path, name: str, content: str, stages: Sequence[Stage]
) -> dict[str, list[int]]:
    """Write the tables of a run, some units after the other; returns the explained ones by module.

    Args:
        name: of the format.
        content: identifies what was read.
        stages: those that would have written the tables; the footers say that this was done by an import instead. What else they
            write is not known of imported units and stays empty.
    """
    inputs = footer_inputs({"imported": name, "content": content}, stages)
    explained: dict[str, list[int]] = {}
    sequences = 0
    for number, block in enumerate(_blocks(units)):
        rows = _rows(block, name, sequences)
        sequences += len(rows[CORPUS.name])
        key = {"module": block[0].module, "units": [block[0].index, block[-1].index]}
        for table in (table for stage in stages for table in stage.writes):
            path = root / table.path / f"part-{number:05d}.parquet"
            publish(path, table.of_rows(rows.get(table.name, [])), table, footer(inputs[table.name], key, 0.0))
        explained.setdefault(block[0].module, []).extend(unit.index for unit in block if unit.texts)
    return {module: sorted(indices) for module, indices in explained.items() if indices}


def footer_inputs(settings: Mapping[str, Any], stages: Iterable[Stage]) -> dict[str, Mapping[str, Any]]:
    """By table, the inputs of the stage that writes it, with other settings in the place of its own."""
    nothing = cast(RunConfig, None)
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages:
        imported = replace(stage, reads=(), settings=lambda _: dict(settings))
        found |= {table.name: imported.inputs(nothing, {}) for table in stage.writes}
    return found


def _blocks(units: Iterable[ImportedUnit]) -> Iterator[list[ImportedUnit]]:
    """A few units of one module at a time, by rising index."""
    for _, of_module in groupby(units, key=lambda unit: unit.module):
        while block := list(islice(of_module, UNITS_A_FILE)):
            yield sorted(block, key=lambda unit: unit.index)


def _rows(units: Sequence[ImportedUnit], explainer: str, first_id: int) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {table.name: [] for table in TABLES}
    for unit in units:
        keys = {"module": unit.module, "index": unit.index}
        rows[UNITS.name].append(keys | unit.statistics)
        texts, exemplars = _sequences(unit, first_id + len(rows[CORPUS.name]))
        rows[CORPUS.name] += texts
        rows[EXEMPLARS.name] += [keys | {"polarity": "+"} | row for row in exemplars]
        said = {"polarity": "+", "explainer": explainer, "model": "", "prompt_id": "", "status": "ok"}
        rows[EXPLANATIONS.name] += [
            keys | said | {"candidate": candidate, "text": text} for candidate, text in enumerate(unit.texts)
        ]
    return rows


def _sequences(unit: ImportedUnit, first_id: int) -> tuple[list[Row], list[Row]]:
    """Rows of the corpus and of the exemplars. A text that comes twice in different splits counts the first time only."""
    known: dict[tuple[str, ...], tuple[int, str]] = {}
    dealt: Counter[str] = Counter()
    ranks: Counter[tuple[str, str]] = Counter()
    exemplars = []
    for one in unit.sequences:
        split = deal(one.band, dealt[one.band])
        dealt[one.band] += 1
        seq_id, before = known.setdefault(tuple(one.tokens), (first_id + len(known), split))
        if before != split:
            continue
        peak = int(np.argmax(one.activations))
        exemplars.append(
            {"band": one.band, "split": split, "rank": ranks[one.band, split], "seq_id": seq_id, "peak": peak}
            | {"max_activation": one.activations[peak], "activations": one.activations}
        )
        ranks[one.band, split] += 1
    name = f"{unit.module}/{unit.index}"
    texts = [
        {"seq_id": seq_id, "split": split, "doc_id": name, "start": 0, "tokens": list(text)}
        for text, (seq_id, split) in known.items()
    ]
    return texts, exemplars


def deal(band: str, place: int) -> str:
    """The split of a sequence by its band and its rank there."""
    splits = DEALT.get(band, ("explain",))
    return splits[place % len(splits)]


def run_file(root: Path, name: str, units: Mapping[str, Sequence[int]]) -> str:
    """The run file with which an imported run is simulated and scored."""
    modules = [json.dumps(module, ensure_ascii=False) for module in units]
    listed = ", ".join(f"{module} = {list(indices)}" for module, indices in zip(modules, units.values(), strict=True))
    return f"""# What {root.name} holds was imported ({name}); a run simulates and scores its explanations.
[run]
name = {json.dumps(root.name)}
folder = {json.dumps(str(root.parent), ensure_ascii=False)}

[subject]
model = "{IMPORTED}" # is not loaded
modules = [{", ".join(modules)}]

[corpus]
source = "{IMPORTED}" # is not read

[record]
skip_positions = 0 # the other program may have counted all; a higher number leaves the first ones of a sequence out of scores

[explain]
explainer = "{name}" # those that were imported; a list may hold further ones
units = {{ {listed} }}

[explain.variants.{name}] # is not run, as its explanations are there
"""


def writers(stages: Iterable[Stage]) -> list[Stage]:
    """The stages that write the tables of an import."""
    names = {table.name for table in TABLES}
    return [stage for stage in stages if not names.isdisjoint(table.name for table in stage.writes)]
