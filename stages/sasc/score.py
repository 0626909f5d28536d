"""The score.sasc stage: how much more a unit responds to texts for an explanation than to texts against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.context import Context
from pipeline.stage import Shard, Stage
from pipeline.subjects.spec import resolve_model
from stages.explain.units import draw, unit_name
from stages.sasc.explained import Row, by_unit, plan, table_of
from stages.sasc.scoring import choose, interval, null_scores, p_value, sasc_score
from stages.sasc.tables import NGRAM_LIST, RESPONSES, SASC_SCORES, SYNTHETIC_TEXTS, THEMES

NGRAM_SAMPLE = 2_000
"""N-grams that random functions are standardised on, at most."""
REMEMBERED = 20_000
"""Texts whose responses are kept."""
COPIED = ("module", "index", "polarity", "explainer", "candidate", "text", "status", "error")

Values = npt.NDArray[np.float64]
Halves = dict[tuple[str, str], list[Row]]
"""Texts of an explanation by kind and half."""


@dataclass(frozen=True)
class RandomFunctions:
    """Random directions in the space of a sentence embedder: functions of texts without a concept."""

    embedder: Any
    directions: Values  # (D, R)
    sigma: Values  # (R,)
    known: dict[str, Values] = field(default_factory=dict)
    """Responses to texts that were asked before: passages serve many explanations."""

    def values(self, texts: Sequence[str]) -> Values:
        """(N, R) responses."""
        missing = [text for text in dict.fromkeys(texts) if text not in self.known]
        if len(self.known) + len(missing) > REMEMBERED:
            self.known.clear()
            missing = list(dict.fromkeys(texts))
        vectors = self.embedder.encode(missing).astype(np.float64)
        # Row by row, as the last bits of a product of matrices depend on how many rows there are.
        self.known.update((text, vector @ self.directions) for text, vector in zip(missing, vectors, strict=True))
        return np.stack([self.known[text] for text in texts])


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a score."""
    sasc = config.sasc
    return {
        "seed": config.run.seed,
        "sasc": sasc.model_dump(include={"nulls", "bootstrap", "embedder"}),
        "revision": resolve_model(sasc.embedder).revision,
    }


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Score the explanations of the units of one shard."""
    functions = context.once("random functions", lambda _: random_functions(context))
    responses = by_unit(context.tables, RESPONSES, shard.key)
    themes = by_unit(context.tables, THEMES, shard.key)
    texts = by_unit(context.tables, SYNTHETIC_TEXTS, shard.key)
    rows = [
        row
        for index in shard.key["indices"]
        for row in score_unit(context.config, responses[index][0], themes[index], texts[index], functions)
    ]
    return {SASC_SCORES.name: table_of(rows, SASC_SCORES.schema)}


def random_functions(context: Context) -> RandomFunctions:
    """The same random directions for all units of a run."""
    from pipeline.subjects.embedder import load_embedder

    config = context.config
    embedder = load_embedder(config.sasc.embedder)
    rng = draw(config.run.seed, "random functions")
    ngrams = context.tables.read(NGRAM_LIST, columns=["ngram_id", "text"]).sort_by("ngram_id")["text"]
    chosen = np.sort(rng.permutation(len(ngrams))[:NGRAM_SAMPLE])
    directions = rng.standard_normal((embedder.width, config.sasc.nulls))
    vectors = embedder.encode(ngrams.take(pa.array(chosen)).to_pylist()).astype(np.float64)
    return RandomFunctions(embedder, directions, np.std(vectors @ directions, axis=0))


def score_unit(
    config: RunConfig, unit: Row, themes: list[Row], texts: list[Row], functions: RandomFunctions
) -> list[Row]:
    """Rows of the scores of one unit: the chosen explanation with its score, the others without.

    Args:
        unit: its row of `responses`.
        themes, texts: its rows of `themes` and `synthetic_texts`.
    """
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
            row |= {"status": "undefined", "error": "there are too few texts for and against it in the select half"}
        elif row["status"] == "ok" and number != chosen:
            row |= {"status": "not_selected", "error": f"candidate {chosen} did better on the select half"}
        elif row["status"] == "ok":
            row |= _score(config, row, halves[number], sign, sigma)
            if row["status"] == "ok":
                row |= _against_random(row["score"], [halves[one] for one in compared], functions)
        rows.append(row)
    return rows


def _score(config: RunConfig, row: Row, halves: Halves, sign: float, sigma: float) -> Row:
    relevant, baseline = _responses(halves, "report", sign)
    score = sasc_score(relevant, baseline, sigma)
    counts = {"n_relevant": len(relevant), "n_baseline": len(baseline)}
    if not np.isfinite(score):
        return {
            **counts,
            "status": "undefined",
            "error": "there are too few texts for and against it in the report half",
        }
    rng = draw(config.run.seed, "interval/" + unit_name(row["module"], row["index"], row["polarity"]))
    low, high = interval(relevant, baseline, sigma, config.sasc.bootstrap, rng)
    return {**counts, "score": score, "ci_low": low, "ci_high": high, "status": "ok", "error": None}


def _against_random(score: float, candidates: Sequence[Halves], functions: RandomFunctions) -> Row:
    """What random functions score on the same texts; each chooses among the candidates that the unit chose from."""
    responses = {
        half: [
            (functions.values(_texts(halves, "relevant", half)), functions.values(_texts(halves, "baseline", half)))
            for halves in candidates
        ]
        for half in ("select", "report")
    }
    nulls = null_scores(responses["select"], responses["report"], functions.sigma)
    known = nulls[np.isfinite(nulls)]
    if not len(known):
        return {}
    return {
        "p_value": p_value(score, nulls),
        "null_mean": float(known.mean()),
        "null_high": float(np.quantile(known, 0.95)),
    }


def _halves(texts: Sequence[Row], candidate: int) -> Halves:
    found: Halves = {(kind, half): [] for kind in ("relevant", "baseline") for half in ("select", "report")}
    for row in sorted(texts, key=lambda row: row["number"]):
        if row["candidate"] == candidate:
            found[row["kind"], row["half"]].append(row)
    return found


def _failure(halves: Halves) -> str | None:
    """Why an explanation's texts give no score: the unit has no number for one of them, or there are none."""
    rows = [row for part in halves.values() for row in part]
    errors = [row["error"] for row in rows if row["status"] != "ok"]
    return errors[0] if errors else None


def _responses(halves: Halves, half: str, sign: float) -> tuple[list[float], list[float]]:
    relevant, baseline = ([sign * row["response"] for row in halves[kind, half]] for kind in ("relevant", "baseline"))
    return relevant, baseline


def _texts(halves: Halves, kind: str, half: str) -> list[str]:
    return [row["text"] for row in halves[kind, half]]


SCORE = Stage(
    name="score.sasc",
    title="score what n-grams share",
    reads=("synthesize", "explain.sasc", "ngrams.merge", "ngrams.list"),
    writes=(SASC_SCORES,),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
)
