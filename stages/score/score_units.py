"""The score stage: simulated against true activations, with interval and controls beside every score.

The candidate is chosen on `select`; everything that is published is computed on `report`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, chunks
from pipeline.schemas import (
    EXPLANATION,
    EXPLANATION_KEYS,
    EXPLANATIONS,
    OF_EXPLANATION,
    OUTCOME,
    SIMULATIONS,
    column,
    unit_table,
)
from stages.estimates import with_texts
from stages.human_explainer import of_explainer
from stages.score import SCORERS
from stages.score.kept_sequences import NOT_KNOWN, Kept, kept_of_units
from stages.score.pairs import COLUMNS, CONTROLS, Pairs, pair, simulation_errors
from stages.score.scorers import Explained, Scorer
from stages.score.statistics import Ints
from stages.score.truth import true_activations
from stages.settings import Explain, Judge, Score, Simulate
from stages.simulate.simulate_units import simulations
from stages.units import draw, unit_name, unit_shards

SCORER_LIST: tuple[Scorer, ...] = tuple(choice(SCORERS, name) for name in SCORERS)
SCORES = unit_table(
    "scores",
    3,
    *EXPLANATION,
    column("text", pa.string(), "the explanation"),
    column("simulator", pa.string(), "method that predicted the activations"),
    column("model", pa.string(), "language model that took part in it, empty where none did"),
    *(one for scorer in SCORER_LIST for one in scorer.columns),
    column("correlation_select", pa.float64(), "correlation on the select split, which chose the candidate"),
    column("n_candidates", pa.int32(), "candidates that could be compared on the select split"),
    column("coverage", pa.float64(), "mean probability mass found on the numbers"),
    column("n_sequences", pa.int32(), "report sequences behind the correlation"),
    column("n_tokens", pa.int32(), "report tokens behind the correlation"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "simulator"],
    refers=[OF_EXPLANATION],
    units_per_group=1024,
)
"""Its row groups are large, as people sort and filter all of its rows."""

CANDIDATE_BITS = 16
AT_ONCE = 256
"""Units whose simulations are in memory at a time."""
Rows = list[dict[str, Any]]
EXPLAINED = [*EXPLANATION_KEYS, "text", "status", "error"]
"""What is read of the explanations table."""
DIGITS = 12
"""Correlations that differ beyond these are equal: then the first candidate is chosen, whatever the last bits are."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score."""
    return {"seed": config.run.seed, "score": config[Score].model_dump(exclude={"shard_units"})}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard."""
    module, polarity = shard.key["module"], shard.key["polarity"]
    parts = (score_some(module, polarity, part, context) for part in chunks(shard.key["indices"], AT_ONCE))
    rows = [row for part in parts for row in part]
    return {SCORES.name: SCORES.of_rows(rows)}


def score_some(module: str, polarity: str, indices: Sequence[int], context: Context) -> Rows:
    """Rows of the scores table for some units."""
    is_unit = context.tables.is_unit(module, indices, polarity)
    mine = is_unit & of_explainer(context.config[Explain].name)
    explanations: dict[int, Rows] = {index: [] for index in indices}
    for row in context.tables.read(EXPLANATIONS, mine, EXPLAINED).to_pylist():
        explanations[row["index"]].append(row)
    simulated = mine & (pc.field("simulator") == context.config[Simulate].name)
    rows_simulated = context.tables.read(SIMULATIONS, simulated, COLUMNS)
    truth = true_activations(context, module, indices, ("select", "report"), polarity)
    kept = kept_of_units(context, module, polarity, indices, truth)
    pairs, errors = pair(rows_simulated, truth), simulation_errors(rows_simulated)
    rows: Rows = []
    for index, unit in zip(indices, pairs.by_unit(indices), strict=True):
        rng = draw(context.config.run.seed, "bootstrap/" + unit_name(module, index, polarity))
        rows += score_unit(context.config, explanations[index], unit, errors, rng, kept[index])
    model = max(rows_simulated["model"].unique().to_pylist(), default="")  # that of the token table is empty
    return [row | {"model": model} for row in rows]


def score_unit(
    config: RunConfig,
    explanations: Rows,
    unit: Pairs,
    errors: Mapping[tuple[int, int], str],
    rng: np.random.Generator,
    kept: Kept = NOT_KNOWN,
) -> Rows:
    """Rows of the scores table for one unit: the chosen candidate with its scores, the others without.

    Args:
        unit: all that was simulated for it.
    """
    numbers, on_select = [row["candidate"] for row in explanations], select_correlations(unit)
    compared = {number: on_select.get(number, np.nan) for number in numbers}
    best = {number: round(value, DIGITS) for number, value in compared.items() if np.isfinite(value)}
    chosen = max(best, key=lambda number: best[number]) if best else min(numbers, default=0)
    found = []
    for row in explanations:
        number = row["candidate"]
        row = row | {
            "simulator": config[Simulate].name,
            "correlation_select": compared[number],
            "n_candidates": len(best),
        }
        if row["text"] is not None and number != chosen:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select split"}
        elif row["text"] is not None:
            row |= published(unit, chosen, config[Score], rng, kept)
            row |= _outcome(row, errors.get((row["index"], chosen)))
        found.append(row)
    return found


def published(unit: Pairs, chosen: int, settings: Score, rng: np.random.Generator, kept: Kept) -> dict[str, Any]:
    """The numbers of the chosen candidate."""
    is_report = unit.rows["is_report"]
    mine = unit.rows["candidate"] == chosen
    select, report = (unit.where(mine & part) for part in (~is_report, is_report))
    explained = Explained(select, report, chosen_controls(unit, chosen), settings, rng, kept)
    row = {name: value for scorer in SCORER_LIST for name, value in scorer.score(explained).items()}
    coverage, lengths = report.rows["coverage"], report.rows["length"]
    known = np.isfinite(coverage) & (lengths > 0)
    return row | {
        "n_sequences": len(report.rows),
        "n_tokens": int(report.rows["sums"][:, 0].sum()),
        "coverage": float(np.average(coverage[known], weights=lengths[known])) if known.any() else np.nan,
    }


def select_correlations(unit: Pairs) -> dict[int, float]:
    """By candidate, the correlation on the select split."""
    own = unit.where((unit.rows["candidate"] >= 0) & ~unit.rows["is_report"])
    numbers, values = own.correlations(own.rows["candidate"])
    return dict(zip(numbers.tolist(), values.tolist(), strict=True))


def chosen_controls(unit: Pairs, chosen: int) -> dict[str, Pairs]:
    """By name, the controls on the report split.

    Of the candidates of each other unit it is the one that does best on the select split of this one, and of the opposites that of the
    chosen candidate.
    """
    ends = np.searchsorted(np.ascontiguousarray(unit.rows["control"]), np.arange(len(CONTROLS) + 1)).tolist()
    found = {name: unit.where(slice(*ends[place : place + 2])) for place, name in enumerate(CONTROLS) if name}
    for name, of in found.items():
        kept = np.ascontiguousarray(of.rows["is_report"])
        if name == "shuffled" and of.rows["source_candidate"].any():
            kept &= np.isin(numbers_of(of), best_candidates(of))
        elif name == "inverted":
            kept &= of.rows["source_candidate"] == chosen
        found[name] = of if kept.all() else of.where(kept)
    return found


def best_candidates(shuffled: Pairs) -> list[int]:
    """The candidate of each source that does best on the select split, the first one among equals, by `numbers_of`."""
    numbers, report = numbers_of(shuffled), shuffled.rows["is_report"]
    best: dict[int, tuple[float, int]] = {
        one >> CANDIDATE_BITS: (-np.inf, one) for one in np.unique(numbers)[::-1].tolist()
    }
    found, values = shuffled.where(~report).correlations(numbers[~report])
    for one, value in zip(found.tolist(), values.tolist(), strict=True):
        if np.isfinite(value) and round(value, DIGITS) > best[one >> CANDIDATE_BITS][0]:
            best[one >> CANDIDATE_BITS] = (round(value, DIGITS), one)
    return [one for _, one in best.values()]


def numbers_of(shuffled: Pairs) -> Ints:
    """(R,) one number for the source and the candidate of each row."""
    numbers: Ints = (shuffled.rows["source"] << CANDIDATE_BITS) + shuffled.rows["source_candidate"]
    return numbers


def _outcome(row: Mapping[str, Any], error: str | None) -> dict[str, Any]:
    """Status and error of a scored explanation; sequences that could not be simulated are named, never counted as 0."""
    if np.isfinite(row["correlation"]):
        reasons = [row["error"] if row["status"] == "truncated" else None]
        reasons.append(error and f"some sequences are left out: {error}")
        return {"status": "ok", "error": "; ".join(filter(None, reasons)) or None}
    if error:
        return {"status": "failed", "error": f"simulation failed: {error}"}
    return {"status": "undefined", "error": "the true or the expected activations do not vary on the report split"}


SCORE = Stage(
    name="score",
    title="score explanations",
    reads=("simulate", "explain", "record.merge", "corpus"),
    writes=(SCORES,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config[Score].shard_units),
    methods=simulations,
    process=process,
    splits=("select", "report"),
    estimate=EstimateHints(
        made_up_tables=lambda config, tables, units: {
            SCORES.name: with_texts(config, tables, units, 1, config[Judge].controls, SCORES)
        }
    ),
    method="simulation",
    version=3,
)
