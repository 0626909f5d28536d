"""What a finished run says of explanations from n-grams: by module, the best, some drawn at random, those not scored."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.execution.stage import MethodReport
from pipeline.results.discoveries import discoveries
from stages.sasc.sasc_tables import NULLS, SASC_SCORES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOP_THEMES = f"""
SELECT module, "index", polarity, score, ci_low, ci_high, p_value, text
FROM sasc_scores WHERE score IS NOT NULL AND module <> '{NULLS}'
ORDER BY score DESC, module, "index", polarity, explainer, candidate LIMIT 20"""
_ROWS = f"(SELECT * FROM sasc_scores WHERE module <> '{NULLS}')"
_UNITS = f"""
(SELECT module, "index", polarity, max(score) AS score, max(null_mean) AS random, max(p_value) AS p,
        bool_or(status = 'failed') AND max(score) IS NULL AS failed
 FROM {_ROWS} GROUP BY module, "index", polarity)"""
_COUNTS = """count(*) AS units, count(score) AS scored, avg(score) AS score, avg(random) AS random,
       count(*) FILTER (p < 0.05) AS significant, count(*) FILTER (failed) AS failed"""
SUMMARY = f"SELECT {_COUNTS} FROM {_UNITS}"
MODULES = f"""
SELECT module, units, scored, score AS "mean score", significant AS "p < 0.05"
FROM (SELECT module, {_COUNTS} FROM {_UNITS} GROUP BY module) ORDER BY score DESC NULLS LAST, module LIMIT 30"""
FAILURES = f"""
SELECT module, count(DISTINCT ("index", polarity)) AS units, status,
       left(regexp_replace(error, ' \\[\\d+ of \\d+ texts, [^]]*\\]$', ''), 160) AS why
FROM {_ROWS} WHERE (module, "index", polarity) NOT IN
    (SELECT (module, "index", polarity) FROM {_ROWS} WHERE score IS NOT NULL)
GROUP BY ALL ORDER BY units DESC, module, status, why LIMIT 8"""
KEY = """score     by how many standard deviations of its responses to n-grams the unit responds more to texts that fit the
          explanation than to texts that do not (texts that took no part in choosing the explanation)
interval  of the score, over 95 % of resamples of these texts
p         share of null units that score as high: random directions, which were explained and scored in the same way"""
_KEYS = 'module, "index", polarity, explainer, candidate'
SHOWN = 16
"""Units up to which all are shown."""


def describe(connection: "DuckDBPyConnection", root: Path, seed: int) -> str:
    """The report on a run."""
    from pipeline.commands.query import format_table

    values = connection.sql(SUMMARY).to_arrow_table().to_pylist()[0]
    parts = [
        f"Dataset: {root}/sasc_scores/*.parquet (and responses, ngrams, themes, synthetic_texts beside it)",
        f'Query:   make query SQL="SELECT module, text, score FROM sasc_scores ORDER BY score DESC" RUN={root}',
        f'         make query SQL="SELECT module, \\"index\\", text, response FROM ngrams WHERE rank < 3" RUN={root}',
    ]
    tables = [("By module", MODULES), *_shown(values["scored"], seed), ("Not scored", FAILURES)]
    for title, sql in tables:
        rows = connection.sql(sql)
        if found := rows.fetchall():
            parts += ["", title, format_table(rows.columns, found)]
    mean, random = ("none" if values[name] is None else f"{values[name]:.2f}" for name in ("score", "random"))
    parts += [
        "",
        KEY,
        "",
        *(one.sentence for one in discoveries(connection, REPORT)),
        f"{values['scored']} of {values['units']} units scored: mean score {mean} (null units {random}), p < 0.05 for "
        f"{values['significant']} of them" + (f"; {values['failed']} failed" if values["failed"] else ""),
    ]
    return "\n".join(parts)


def _shown(scored: int, seed: int) -> list[tuple[str, str]]:
    """Titles and queries of the explanations to show: all where there are few."""
    select = f"""SELECT module, "index", polarity AS sign, score,
        printf('%.2f to %.2f', ci_low, ci_high) AS interval, p_value AS p, text
        FROM {_ROWS} WHERE score IS NOT NULL ORDER BY"""
    if scored <= SHOWN:
        return [("Explanations from n-grams", f"{select} score DESC, {_KEYS}")]
    return [
        ("Best explained by n-grams", f"{select} score DESC, {_KEYS} LIMIT {SHOWN // 2}"),
        ("Drawn at random", f'{select} hash(module, "index", polarity, {seed}), {_KEYS} LIMIT {SHOWN // 2}'),
    ]


REPORT = MethodReport(
    SASC_SCORES.name,
    TOP_THEMES,
    describe,
    score="SASC score",
    numbers={"score": "score", "low": "ci_low", "high": "ci_high", "control": "null_mean", "p_value": "p_value"},
)
