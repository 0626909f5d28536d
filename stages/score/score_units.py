"""The score stage: simulated against true activations, with interval and controls beside every score.

The candidate is chosen on `select`; everything that is published is computed on `report`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.execution.stage import Context, EstimateHints, MethodReport, Shard, Stage, chunks
from pipeline.results.discoveries import discoveries
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
from stages.evidence import Exemplar, RecordedUnits
from stages.human_explainer import of_explainer
from stages.score import SCORERS
from stages.score.scorers import Explained, Pairs, Scorer, flat
from stages.settings import Explain, Judge, Score, Simulate
from stages.simulate.simulate_units import simulations
from stages.units import draw, unit_name, unit_shards

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SCORERS: tuple[Scorer, ...] = tuple(choice(SCORERS, name) for name in SCORERS)
SCORES = unit_table(
    "scores",
    3,
    *EXPLANATION,
    column("text", pa.string(), "the explanation"),
    column("simulator", pa.string(), "method that predicted the activations"),
    column("model", pa.string(), "language model that took part in it, empty where none did"),
    *(one for scorer in _SCORERS for one in scorer.columns),
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

AT_ONCE = 64
"""Units whose simulations are in memory at a time."""
Rows = list[dict[str, Any]]
KEYS = ["index", "seq_id", "split"]
DIGITS = 12
"""Correlations that differ beyond these are equal: then the first candidate is chosen, whatever the last bits are."""
TOP_EXPLANATIONS = """
SELECT module, "index", correlation, ci_low, ci_high, correlation_shuffled AS control, text
FROM scores WHERE correlation IS NOT NULL
ORDER BY correlation DESC, module, "index", polarity, explainer, candidate, simulator LIMIT 20"""
_COLUMNS = """module, "index", correlation AS r, CASE WHEN ci_low IS NULL THEN NULL
    ELSE printf('%.2f to %.2f', ci_low, ci_high) END AS interval, correlation_shuffled AS control, text"""
_KEYS = 'module, "index", polarity, explainer, candidate, simulator'
_CHOSEN = "status <> 'not_selected'"
MEANS = {
    "correlation": "correlation, top and random sequences",
    "correlation_random": "correlation, random sequences alone",
    "correlation_shuffled": "the same under explanations of other units (control)",
    "correlation_lookup": "mean activation of every token, no words (baseline)",
    "correlation_top_token": "one token named",
    "correlation_constant": "one sentence for every unit",
}
"""Columns whose means over the units are told, and what they are."""
SUMMARY = f"""
SELECT explainer, simulator, count(*) AS units, count(*) FILTER (status = 'dead') AS dead,
       {", ".join(f"avg({name}) AS {name}, count({name}) AS n_{name}" for name in MEANS)}
FROM scores WHERE {_CHOSEN} GROUP BY explainer, simulator ORDER BY explainer, simulator"""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score."""
    return {"seed": config.run.seed, "score": config[Score].model_dump(exclude={"shard_units"})}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard."""
    module, polarity = shard.key["module"], shard.key["polarity"]
    rows = [
        row for part in chunks(shard.key["indices"], AT_ONCE) for row in score_some(module, polarity, part, context)
    ]
    return {SCORES.name: SCORES.of_rows(rows)}


def score_some(module: str, polarity: str, indices: Sequence[int], context: Context) -> Rows:
    """Rows of the scores table for some units."""
    is_unit = context.tables.is_unit(module, indices, polarity)
    mine = is_unit & of_explainer(context.config[Explain].name)
    explanations = context.tables.read(EXPLANATIONS, mine).to_pylist()
    held_out = pc.field("split").isin(["select", "report"])
    simulated = mine & held_out & (pc.field("simulator") == context.config[Simulate].name)
    rows_simulated = context.tables.read(SIMULATIONS, simulated)
    true = RecordedUnits.of(context).exemplars(module, indices, ("select", "report"), polarity, texts=False)
    pairs = pair(rows_simulated, true)
    errors = simulation_errors(rows_simulated)
    rows: Rows = []
    for index in indices:
        own = [row for row in explanations if row["index"] == index]
        rng = draw(context.config.run.seed, "bootstrap/" + unit_name(module, index, polarity))
        rows += score_unit(context.config, own, pairs.where(pairs.rows["index"] == index), errors, rng)
    model = max(rows_simulated["model"].unique().to_pylist(), default="")  # that of the token table is empty
    return [row | {"model": model} for row in rows]


def pair(simulations: pa.Table, exemplars: Mapping[int, Sequence[Exemplar]]) -> Pairs:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Only `top` and `random` exemplars are scored on (Bills et al. 2023); a sequence kept for both reasons counts once.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    import pandas as pd

    kept = [(index, one) for index, found in exemplars.items() for one in found if one.band in ("top", "random")]
    truths = pd.DataFrame(
        {
            "index": np.array([index for index, _ in kept], dtype=np.int64),
            "seq_id": np.array([one.seq_id for _, one in kept], dtype=np.int64),
            "split": pd.Series([one.split for _, one in kept], dtype="str"),
            "is_random": np.array([one.band == "random" for _, one in kept], dtype=bool),
            "true": pd.Series([one.activations for _, one in kept], dtype="object"),
        }
    )
    truths = truths.sort_values("is_random", kind="stable").drop_duplicates(KEYS, keep="last")
    names = [*KEYS, "candidate", "control", "source", "source_candidate", "expected", "coverage"]
    rows = simulations.filter(pc.field("status") == "ok").select(names).to_pandas()
    rows["candidate"] = rows["candidate"].where(rows["control"] == "", -1).astype(np.int64)
    rows = rows.merge(truths, on=KEYS)
    wrong = rows[[len(true) != len(row) for true, row in zip(rows["true"], rows["expected"], strict=True)]]
    if len(wrong):
        index, seq_id = wrong.iloc[0][["index", "seq_id"]]
        raise ValueError(f"unit {index}, sequence {seq_id}: as many expected activations as tokens are needed")
    return Pairs.of(rows)


def simulation_errors(simulations: pa.Table) -> dict[tuple[int, int], str]:
    """The first error of each explanation that could not be simulated on every sequence, by (index, candidate)."""
    failed = (pc.field("status") == "failed") & (pc.field("control") == "")
    rows = simulations.filter(failed).select(["index", "candidate", "error"]).to_pylist()
    return {(row["index"], row["candidate"]): row["error"] for row in reversed(rows)}


def score_unit(
    config: RunConfig, explanations: Rows, unit: Pairs, errors: Mapping[tuple[int, int], str], rng: np.random.Generator
) -> Rows:
    """Rows of the scores table for one unit: the chosen candidate with its scores, the others without.

    Args:
        unit: all that was simulated for it.
    """
    is_report = unit.rows["split"] == "report"
    numbers = [row["candidate"] for row in explanations]
    candidates = {number: unit.rows["candidate"] == number for number in numbers}
    on_select = np.array([unit.where(mine & ~is_report).correlation for mine in candidates.values()])
    chosen = (
        numbers[int(np.nanargmax(np.round(on_select, DIGITS)))]
        if np.isfinite(on_select).any()
        else min(numbers, default=0)
    )
    found = []
    for place, row in enumerate(explanations):
        number = row["candidate"]
        row = row | {
            "simulator": config[Simulate].name,
            "correlation_select": on_select[place],
            "n_candidates": int(np.isfinite(on_select).sum()),
        }
        if row["text"] is not None and number != chosen:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select split"}
        elif row["text"] is not None:
            select, report = (unit.where(candidates[chosen] & part) for part in (~is_report, is_report))
            controls = chosen_controls(unit)
            explained = Explained(select, report, controls, config[Score], rng)
            row |= {name: value for scorer in _SCORERS for name, value in scorer.score(explained).items()}
            row |= {"n_sequences": len(report.rows), "n_tokens": int(report.sums[:, 0].sum())}
            row["coverage"] = flat(report.rows["coverage"]).mean() if len(report.rows) else np.nan
            row |= _outcome(row, errors.get((row["index"], chosen)))
        found.append(row)
    return found


def chosen_controls(unit: Pairs) -> Pairs:
    """The controls on the report split; of the candidates of each other unit the one that does best on the select split of this one."""
    rows, is_report = unit.rows, unit.rows["split"] == "report"
    shuffled = unit.where(rows["control"] == "shuffled")
    candidates = 1 + int(shuffled.rows["source_candidate"].max()) if len(shuffled.rows) else 1
    number = (shuffled.rows["source"] * candidates + shuffled.rows["source_candidate"]).to_numpy(np.int64)
    on_select = shuffled.rows["split"].to_numpy() != "report"
    best: dict[int, tuple[float, int]] = {one // candidates: (-np.inf, one) for one in np.unique(number)[::-1].tolist()}
    for one, value in zip(*shuffled.where(on_select).correlations(number[on_select]), strict=True):
        if np.isfinite(value) and round(value, DIGITS) > best[one // candidates][0]:
            best[one // candidates] = (round(value, DIGITS), one)
    chosen = np.isin(number, [one for _, one in best.values()])
    kept = (rows["control"] != "").to_numpy() & is_report.to_numpy()
    kept[(rows["control"] == "shuffled").to_numpy()] &= chosen
    return unit.where(kept)


def _outcome(row: Mapping[str, Any], error: str | None) -> dict[str, Any]:
    """Status and error of a scored explanation; sequences that could not be simulated are named, never counted as 0."""
    if np.isfinite(row["correlation"]):
        reasons = [row["error"] if row["status"] == "truncated" else None]
        reasons.append(error and f"some sequences are left out: {error}")
        return {"status": "ok", "error": "; ".join(filter(None, reasons)) or None}
    if error:
        return {"status": "failed", "error": f"simulation failed: {error}"}
    return {"status": "undefined", "error": "the true or the expected activations do not vary on the report split"}


def describe(connection: "DuckDBPyConnection", root: Path, seed: int) -> str:
    """What a finished run says of its explanations: the best, some drawn at random, and their scores with the controls."""
    from pipeline.commands.query import format_table

    parts = [
        f"Dataset: {root}/scores/*.parquet (and units, exemplars, explanations, simulations beside it)",
        f'Query:   make query SQL="SELECT text, correlation FROM scores ORDER BY correlation DESC" RUN={root}',
    ]
    several = connection.sql(SUMMARY).to_arrow_table().to_pylist()
    columns = _COLUMNS if len(several) < 2 else f"{_COLUMNS}, explainer, simulator"
    for title, order, limit in (
        ("Best explained", f"correlation DESC NULLS LAST, {_KEYS}", 8),
        ("Drawn at random", f'hash(module, "index", {seed}), {_KEYS}', 8),
    ):
        rows = connection.sql(
            f"SELECT {columns} FROM scores WHERE {_CHOSEN} AND status <> 'dead' ORDER BY {order} LIMIT {limit}"
        )
        parts += ["", title, format_table(rows.columns, rows.fetchall())]
    tested = {tuple(one.methods.values()): one.sentence for one in discoveries(connection, REPORT)}
    said = [tested.get((one["explainer"], one["simulator"]), "") for one in several]
    return "\n".join(
        [*parts, *(_means(one, words, len(several) > 1) for one, words in zip(several, said, strict=True))]
    )


def _means(values: Mapping[str, Any], tested: str, named: bool) -> str:
    """How many units are scored, a table of means, each with the number of units behind it, and what the p-values show."""
    from pipeline.commands.query import format_table

    by, dead = "{explainer}, simulated by {simulator}: ".format(**values) if named else "", values["dead"]
    silent = f"; {dead} dead, as they fire nowhere that the explainer may see" if dead else ""
    means = [(what, values[name], values[f"n_{name}"]) for name, what in MEANS.items()]
    table = format_table(["", "mean", "units"], means)
    return f"\n{by}{values['n_correlation']} of {values['units']} units scored{silent}\n{table}\n{tested}".rstrip()


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
    version=2,
)
REPORT = MethodReport(
    SCORES.name,
    TOP_EXPLANATIONS,
    describe,
    score="correlation",
    numbers={
        "score": "correlation",
        "low": "ci_low",
        "high": "ci_high",
        "random": "correlation_random",
        "control": "correlation_shuffled",
        "lookup": "correlation_lookup",
        "p_value": "p_value",
        "controls": "n_shuffled",
    },
    controls="simulate.controls",
)
