"""The score.sasc stage: how much more a unit responds to texts for an explanation than to texts against it.

Shapes: N texts, R null units.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage
from stages.sasc import Sasc
from stages.sasc.sasc_tables import NULLS, RESPONSES, SASC_SCORES, SYNTHETIC_TEXTS, THEMES
from stages.sasc.sasc_units import Row, polarities_of, rows_by_unit, unit_shards
from stages.score.statistics import permutation_p
from stages.units import draw, unit_name

if TYPE_CHECKING:
    import pandas as pd

COPIED = ("module", "index", "polarity", "explainer", "candidate", "text", "status", "error")
TEXTS = ["candidate", "kind", "number", "half", "text", "response", "status", "error"]
LEVEL = 0.95
LEAST = 2
"""Texts of each kind that a score needs."""

Values = npt.NDArray[np.float64]
Responses = Values | Sequence[float]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score; how many null units there are is known upstream."""
    return {"seed": config.run.seed, "bootstrap": config[Sasc].bootstrap}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard, and compare them with the null units."""
    rows = [row for unit in _scored(context, shard.key) for row in unit]
    if shard.key["module"] != NULLS:
        nulls = context.once("null scores", lambda _: null_scores(context))
        rows = [row | _against_nulls(row, nulls) for row in rows]
    return {SASC_SCORES.name: SASC_SCORES.of_rows(rows)}


def null_scores(context: Context) -> Values:
    """(R,) published scores of the null units that have one."""
    sasc = context.config[Sasc]
    (polarity,) = polarities_of(context.config, NULLS, signed=True)
    key = {"module": NULLS, "indices": list(range(sasc.nulls)), "polarity": polarity}
    units = _scored(context, key) if sasc.nulls else []
    return np.asarray([row["score"] for unit in units for row in unit if row.get("score") is not None])


def _scored(context: Context, key: Mapping[str, Any]) -> list[list[Row]]:
    tables = (RESPONSES, THEMES, SYNTHETIC_TEXTS)
    responses, themes, texts = (rows_by_unit(context.tables, table, key) for table in tables)
    return [score_unit(context.config, responses[index][0], themes[index], texts[index]) for index in key["indices"]]


def _against_nulls(row: Row, nulls: Values) -> Row:
    if row.get("score") is None or not len(nulls):
        return {}
    return {
        "p_value": permutation_p(row["score"], nulls),
        "null_mean": float(nulls.mean()),
        "null_high": float(np.quantile(nulls, 0.95)),
    }


def score_unit(config: RunConfig, unit: Row, themes: Sequence[Row], texts: Sequence[Row]) -> list[Row]:
    """Rows of the scores of one unit: the chosen explanation with its score, the others without.

    A unit that gives no number for a text of any explanation has no score at all: nothing else that it says can be relied on.
    """
    import pandas as pd

    rows = [{name: theme[name] for name in COPIED} | {"n_candidates": 0} for theme in themes]
    frame = pd.DataFrame(texts, columns=TEXTS).sort_values("number", kind="stable")
    explained = {row["candidate"]: row for row in rows if row["status"] == "ok"}
    if (error := _no_number(frame)) is not None:
        for row in explained.values():
            row |= {"status": "failed", "error": error}
        return rows
    frame["response"] = frame["response"].astype(float) * (1.0 if unit["polarity"] == "+" else -1.0)
    own = {number: frame[frame["candidate"] == number] for number in explained}
    for number, row in explained.items():
        failures = own[number]["error"][own[number]["status"] != "ok"]
        if len(failures):
            row |= {"status": "failed", "error": failures.iloc[0]}
        else:
            row["score_select"] = sasc_score(*_responses(own[number], "select"), unit["sigma"])
    compared = [number for number, row in explained.items() if np.isfinite(row.get("score_select", np.nan))]
    chosen = max(compared, key=lambda number: explained[number]["score_select"], default=None)
    for number, row in explained.items():
        if number == chosen:
            row |= _score(config, row, own[number], unit["sigma"])
        elif number in compared:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select half"}
        elif row["status"] == "ok":
            row |= {"status": "undefined", "error": _too_few(own[number], "select")}
    return [row | {"n_candidates": len(compared)} for row in rows]


def _no_number(texts: "pd.DataFrame") -> str | None:
    """Why the unit gives no number for a text, for how many of them, and the first of these; None where all have one."""
    asked = texts[texts["text"].notna()]
    bad = asked[asked["status"] != "ok"].sort_values(["candidate", "kind", "number"])
    if bad.empty:
        return None
    first = bad.iloc[0]
    named = f"{first['kind']} text {first['number']} of candidate {first['candidate']}"
    return f"{first['error']} [{len(bad)} of {len(asked)} texts, the first is {named}]"


def _score(config: RunConfig, row: Row, texts: "pd.DataFrame", sigma: float) -> Row:
    """The score of the chosen explanation, with its interval."""
    relevant, baseline = _responses(texts, "report")
    score = sasc_score(relevant, baseline, sigma)
    counts = {"n_relevant": len(relevant), "n_baseline": len(baseline)}
    if not np.isfinite(score):
        return {**counts, "status": "undefined", "error": _too_few(texts, "report")}
    rng = draw(config.run.seed, "interval/" + unit_name(row["module"], row["index"], row["polarity"]))
    low, high = interval(relevant, baseline, sigma, config[Sasc].bootstrap, rng)
    return {**counts, "score": score, "ci_low": low, "ci_high": high}


def _too_few(texts: "pd.DataFrame", half: str) -> str:
    """That there are too few texts, and why."""
    reasons = texts["error"].dropna().unique()
    return "; ".join([f"there are too few texts for and against it in the {half} half", *reasons])


def _responses(texts: "pd.DataFrame", half: str) -> tuple[Values, Values]:
    """Responses to the relevant and to the baseline texts of a half."""
    own = texts[texts["half"] == half]
    return own["response"][own["kind"] == "relevant"].to_numpy(), own["response"][own["kind"] == "baseline"].to_numpy()


def sasc_score(relevant: Responses, baseline: Responses, sigma: float) -> float:
    """(mean f(relevant) - mean f(baseline)) / sigma (Singh et al. 2023, section 3).

    NaN where there are fewer than LEAST responses of a kind, one of them is not finite, or sigma is not positive.

    Args:
        relevant, baseline: responses to the texts for and against the explanation, in activation units.
        sigma: standard deviation of the responses to the n-grams, in the same units.
    """
    if min(np.size(relevant), np.size(baseline)) < LEAST or not (np.isfinite(sigma) and sigma > 0):
        return np.nan
    return float((np.mean(relevant) - np.mean(baseline)) / sigma)


def interval(
    relevant: Responses, baseline: Responses, sigma: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Ends of the percentile bootstrap interval of `sasc_score`; the texts of each kind are drawn anew by themselves."""
    if not np.isfinite(sasc_score(relevant, baseline, sigma)):
        return np.nan, np.nan
    first, second = (
        values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
        for values in map(np.asarray, (relevant, baseline))
    )
    low, high = np.quantile((first - second) / sigma, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


SCORE = Stage(
    name="score.sasc",
    title="score what n-grams share",
    reads=("synthesize", "explain.sasc", "ngrams.merge"),
    writes=(SASC_SCORES,),
    settings=settings,
    plan=unit_shards,
    process=process,
    method="sasc",
    version=3,
)
