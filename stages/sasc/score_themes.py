"""The score.sasc stage: how much more a unit responds to texts for an explanation than to texts against it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.context import Context
from pipeline.execution.stage import Shard, Stage
from stages.sasc.explained import Row, by_unit, plan, table_of
from stages.sasc.polarities import polarities_of
from stages.sasc.sasc_tables import NULLS, RESPONSES, SASC_SCORES, SYNTHETIC_TEXTS, THEMES
from stages.sasc.scoring import Values, choose, interval, p_value, sasc_score
from stages.settings import Sasc
from stages.units import draw, unit_name

COPIED = ("module", "index", "polarity", "explainer", "candidate", "text", "status", "error")

Halves = dict[tuple[str, str], list[Row]]
"""Texts of an explanation by kind and half."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score; how many null units there are is known upstream."""
    return {"seed": config.run.seed, "bootstrap": config[Sasc].bootstrap}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard, and compare them with the null units."""
    rows = [row for unit in _scored(context, shard.key) for row in unit]
    if shard.key["module"] != NULLS:
        nulls = context.once("null scores", lambda _: null_scores(context))
        rows = [row | _against_nulls(row, nulls) for row in rows]
    return {SASC_SCORES.name: table_of(rows, SASC_SCORES.schema)}


def null_scores(context: Context) -> Values:
    """(R,) published scores of the null units that have one."""
    sasc = context.config[Sasc]
    (polarity,) = polarities_of(context.config, NULLS, signed=True)
    key = {"module": NULLS, "indices": list(range(sasc.nulls)), "polarity": polarity}
    units = _scored(context, key) if sasc.nulls else []
    return np.asarray([row["score"] for unit in units for row in unit if row.get("score") is not None])


def _scored(context: Context, key: Mapping[str, Any]) -> list[list[Row]]:
    responses, themes, texts = (by_unit(context.tables, table, key) for table in (RESPONSES, THEMES, SYNTHETIC_TEXTS))
    return [score_unit(context.config, responses[index][0], themes[index], texts[index]) for index in key["indices"]]


def score_unit(config: RunConfig, unit: Row, themes: list[Row], texts: list[Row]) -> list[Row]:
    """Rows of the scores of one unit: the chosen explanation with its score, the others without.

    A unit that gives no number for a text of any explanation has no score at all: nothing else that it says can be relied on.

    Args:
        unit: its row of `responses`.
        themes, texts: its rows of `themes` and `synthetic_texts`.
    """
    if (error := _no_number(texts)) is not None:
        return [_failed(theme, error) for theme in themes]
    sign, sigma = (1.0 if unit["polarity"] == "+" else -1.0), unit["sigma"]
    halves = {row["candidate"]: _halves(texts, row["candidate"]) for row in themes}
    errors = {row["candidate"]: _failure(halves[row["candidate"]]) for row in themes if row["status"] == "ok"}
    usable = [number for number, error in errors.items() if error is None]
    on_select = {number: sasc_score(*_responses(halves[number], "select", sign), sigma) for number in usable}
    compared = [number for number in usable if np.isfinite(on_select[number])]
    chosen = compared[choose([on_select[number] for number in compared])] if compared else None
    rows = []
    for theme in themes:
        number = theme["candidate"]
        row = {name: theme[name] for name in COPIED}
        row |= {"score_select": on_select.get(number), "n_candidates": len(compared)}
        if errors.get(number) is not None:
            row |= {"status": "failed", "error": errors[number]}
        elif row["status"] == "ok" and number not in compared:
            row |= {"status": "undefined", "error": _too_few(halves[number], "select")}
        elif row["status"] == "ok" and number != chosen:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select half"}
        elif row["status"] == "ok":
            row |= _score(config, row, halves[number], sign, sigma)
        rows.append(row)
    return rows


def _no_number(texts: Sequence[Row]) -> str | None:
    """Why the unit gives no number for a text, for how many of them, and the first of these; None where all have one."""
    asked = [row for row in texts if row["text"] is not None]
    bad = [row for row in asked if row["status"] != "ok"]
    if not bad:
        return None
    first = min(bad, key=lambda row: (row["candidate"], row["kind"], row["number"]))
    named = f"{first['kind']} text {first['number']} of candidate {first['candidate']}"
    return f"{first['error']} [{len(bad)} of {len(asked)} texts, the first is {named}]"


def _failed(theme: Row, error: str) -> Row:
    row = {name: theme[name] for name in COPIED} | {"n_candidates": 0}
    return row | ({"status": "failed", "error": error} if theme["status"] == "ok" else {})


def _score(config: RunConfig, row: Row, halves: Halves, sign: float, sigma: float) -> Row:
    relevant, baseline = _responses(halves, "report", sign)
    score = sasc_score(relevant, baseline, sigma)
    counts = {"n_relevant": len(relevant), "n_baseline": len(baseline)}
    if not np.isfinite(score):
        return {**counts, "status": "undefined", "error": _too_few(halves, "report")}
    rng = draw(config.run.seed, "interval/" + unit_name(row["module"], row["index"], row["polarity"]))
    low, high = interval(relevant, baseline, sigma, config[Sasc].bootstrap, rng)
    return {**counts, "score": score, "ci_low": low, "ci_high": high, "status": "ok", "error": None}


def _against_nulls(row: Row, nulls: Values) -> Row:
    if row.get("score") is None or not len(nulls):
        return {}
    return {
        "p_value": p_value(row["score"], nulls),
        "null_mean": float(nulls.mean()),
        "null_high": float(np.quantile(nulls, 0.95)),
    }


def _halves(texts: Sequence[Row], candidate: int) -> Halves:
    found: Halves = {(kind, half): [] for kind in ("relevant", "baseline") for half in ("select", "report")}
    for row in sorted(texts, key=lambda row: row["number"]):
        if row["candidate"] == candidate:
            found[row["kind"], row["half"]].append(row)
    return found


def _failure(halves: Halves) -> str | None:
    """Why an explanation has no texts of a kind, if it has none."""
    errors = [row["error"] for part in halves.values() for row in part if row["status"] != "ok"]
    return errors[0] if errors else None


def _too_few(halves: Halves, half: str) -> str:
    """That there are too few texts, and why."""
    reasons = dict.fromkeys(row["error"] for part in halves.values() for row in part if row["error"])
    return "; ".join([f"there are too few texts for and against it in the {half} half", *reasons])


def _responses(halves: Halves, half: str, sign: float) -> tuple[list[float], list[float]]:
    relevant, baseline = ([sign * row["response"] for row in halves[kind, half]] for kind in ("relevant", "baseline"))
    return relevant, baseline


SCORE = Stage(
    name="score.sasc",
    title="score what n-grams share",
    reads=("synthesize", "explain.sasc", "ngrams.merge"),
    writes=(SASC_SCORES,),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
    version=3,
)
