"""The score stage: simulated against true activations, with interval and controls beside every score."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.execution.context import Context
from pipeline.execution.stage import Shard, Stage
from pipeline.schemas import EXPLANATIONS, SCORES, SIMULATIONS
from stages.recorded_units import RecordedUnits
from stages.score.pairing import Paired, pair
from stages.score.unit import choose_candidate, score_controls, score_explanation
from stages.settings import Score, Simulate
from stages.units import draw, unit_name, unit_shards

Rows = list[dict[str, Any]]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score."""
    return {"seed": config.run.seed, "score": config[Score].model_dump(exclude={"shard_units"})}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    is_unit = context.tables.is_unit(module, indices, polarity)
    explanations = context.tables.read(EXPLANATIONS, is_unit).to_pylist()
    simulations = context.tables.read(SIMULATIONS, is_unit & ds.field("split").isin(["select", "report"]))
    paired = pair(simulations, RecordedUnits.of(context).exemplars(module, indices, ("select", "report"), polarity))
    errors = simulation_errors(simulations)
    rows: Rows = []
    for index in indices:
        own = [row for row in explanations if row["index"] == index]
        rng = draw(context.config.run.seed, "bootstrap/" + unit_name(module, index, polarity))
        rows += score_unit(context.config, own, paired, errors, rng)
    return {SCORES.name: scores_table(rows)}


def simulation_errors(simulations: pa.Table) -> dict[tuple[int, int], str]:
    """The first error of each explanation that could not be simulated on every sequence, by (index, candidate)."""
    found: dict[tuple[int, int], str] = {}
    for row in simulations.select(["index", "candidate", "control", "status", "error"]).to_pylist():
        if row["status"] == "failed" and not row["control"]:
            found.setdefault((row["index"], row["candidate"]), row["error"])
    return found


def score_unit(
    config: RunConfig,
    explanations: Rows,
    paired: Paired,
    errors: Mapping[tuple[int, int], str],
    rng: np.random.Generator,
) -> Rows:
    """Rows of the scores table for one unit: the chosen candidate with its scores, the others without."""
    index = explanations[0]["index"]
    rows = paired.of_unit(index)
    own = rows[paired.candidate[rows] >= 0]
    chosen, on_select = choose_candidate(paired, own, len(explanations))
    found = []
    for row in explanations:
        row = row | {
            "simulator": config[Simulate].simulator,
            "correlation_select": on_select[row["candidate"]],
            "n_candidates": int(np.isfinite(on_select).sum()),
        }
        if row["status"] == "ok" and row["candidate"] != chosen:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select split"}
        elif row["status"] == "ok":
            mine = own[paired.candidate[own] == chosen]
            is_report = paired.is_report[mine]
            row |= score_explanation(config[Score], paired, mine[~is_report], mine[is_report], rng)
            row |= score_controls(row["correlation"], paired, rows[paired.is_report[rows]])
            row |= _outcome(row["correlation"], errors.get((index, chosen)))
        found.append(row)
    return found


def _outcome(value: float, error: str | None) -> dict[str, Any]:
    """Status and error of a scored explanation; sequences that could not be simulated are named, never counted as 0."""
    if np.isfinite(value):
        return {"status": "ok", "error": error and f"some sequences are left out: {error}"}
    if error:
        return {"status": "failed", "error": f"simulation failed: {error}"}
    return {"status": "undefined", "error": "the true or the expected activations do not vary on the report split"}


def scores_table(rows: Rows) -> pa.Table:
    """A table in which NaN is null: a score that could not be computed is no number."""
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], type=field.type, from_pandas=True)
        for field in SCORES.schema
    }
    return pa.table(columns, schema=SCORES.schema)


SCORE = Stage(
    name="score",
    title="score explanations",
    reads=("simulate", "explain", "record.merge", "corpus"),
    writes=(SCORES,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config[Score].shard_units),
    process=process,
    splits=("select", "report"),
    method="simulation",
)
