"""What a finished run says of its explanations: the best, some drawn at random, and their scores with their controls."""

from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.commands.printed_tables import format_table
from pipeline.commands.query import MethodReport
from stages.sasc.sasc_tables import NULLS

TOP_EXPLANATIONS = """
SELECT module, "index", correlation, ci_low, ci_high, correlation_shuffled AS control, text
FROM scores WHERE correlation IS NOT NULL ORDER BY correlation DESC, module, "index", polarity LIMIT 20"""
TOP_THEMES = f"""
SELECT module, "index", polarity, score, ci_low, ci_high, p_value, text
FROM sasc_scores WHERE score IS NOT NULL AND module <> '{NULLS}' ORDER BY score DESC, module, "index", polarity LIMIT 20"""
_COLUMNS = """module, "index", correlation AS r, CASE WHEN ci_low IS NULL THEN NULL
    ELSE printf('%.2f to %.2f', ci_low, ci_high) END AS interval, correlation_shuffled AS control, text"""
_CHOSEN = "status <> 'not_selected'"
SUMMARY = f"""
SELECT count(*) AS units, count(correlation) AS scored, count(*) FILTER (status = 'dead') AS dead, avg(correlation) AS correlation,
       avg(correlation_random) AS correlation_random, avg(correlation_shuffled) AS control,
       avg(correlation_lookup) AS lookup,
       count(*) FILTER (ci_low > correlation_shuffled) / nullif(count(correlation), 0) AS above_control
FROM scores WHERE {_CHOSEN}"""


_SASC_ROWS = f"(SELECT * FROM sasc_scores WHERE module <> '{NULLS}')"
_SASC_UNITS = f"""
(SELECT module, "index", polarity, max(score) AS score, max(null_mean) AS random, max(p_value) AS p,
        bool_or(status = 'failed') AND max(score) IS NULL AS failed
 FROM {_SASC_ROWS} GROUP BY module, "index", polarity)"""
_SASC_COUNTS = """count(*) AS units, count(score) AS scored, avg(score) AS score, avg(random) AS random,
       count(*) FILTER (p < 0.05) AS significant, count(*) FILTER (failed) AS failed"""
SASC_SUMMARY = f"SELECT {_SASC_COUNTS} FROM {_SASC_UNITS}"
SASC_MODULES = f"""
SELECT module, units, scored, score AS "mean score", significant AS "p < 0.05"
FROM (SELECT module, {_SASC_COUNTS} FROM {_SASC_UNITS} GROUP BY module) ORDER BY score DESC NULLS LAST, module LIMIT 30"""
SASC_FAILURES = f"""
SELECT module, count(DISTINCT ("index", polarity)) AS units, status,
       left(regexp_replace(error, ' \\[\\d+ of \\d+ texts, [^]]*\\]$', ''), 160) AS why
FROM {_SASC_ROWS} WHERE (module, "index", polarity) NOT IN
    (SELECT (module, "index", polarity) FROM {_SASC_ROWS} WHERE score IS NOT NULL)
GROUP BY ALL ORDER BY units DESC, module, status, why LIMIT 8"""
SASC_KEY = """score     by how many standard deviations of its responses to n-grams the unit responds more to texts that fit the
          explanation than to texts that do not (texts that took no part in choosing the explanation)
interval  of the score, over 95 % of resamples of these texts
p         share of null units that score as high: random directions, which were explained and scored in the same way"""
SHOWN = 16
"""Units up to which all are shown."""


def _of_simulation(connection: DuckDBPyConnection, root: Path, seed: int) -> str:
    parts = [
        f"Dataset: {root}/scores/*.parquet (and units, exemplars, explanations, simulations beside it)",
        f'Query:   make query SQL="SELECT text, correlation FROM scores ORDER BY correlation DESC" RUN={root}',
    ]
    for title, order, limit in (
        ("Best explained", 'correlation DESC NULLS LAST, module, "index", polarity', 8),
        ("Drawn at random", f'hash(module, "index", {seed}), polarity', 8),
    ):
        rows = connection.sql(
            f"SELECT {_COLUMNS} FROM scores WHERE {_CHOSEN} AND status <> 'dead' ORDER BY {order} LIMIT {limit}"
        )
        parts += ["", title, format_table(rows.columns, rows.fetchall())]
    return "\n".join([*parts, "", _sentence(_values(connection, SUMMARY))])


def _of_sasc(connection: DuckDBPyConnection, root: Path, seed: int) -> str:
    values = _values(connection, SASC_SUMMARY)
    parts = [
        f"Dataset: {root}/sasc_scores/*.parquet (and responses, ngrams, themes, synthetic_texts beside it)",
        f'Query:   make query SQL="SELECT module, text, score FROM sasc_scores ORDER BY score DESC" RUN={root}',
        f'         make query SQL="SELECT module, \\"index\\", text, response FROM ngrams WHERE rank < 3" RUN={root}',
    ]
    tables = [("By module", SASC_MODULES), *_sasc_units(values["scored"], seed), ("Not scored", SASC_FAILURES)]
    for title, sql in tables:
        rows = connection.sql(sql)
        if found := rows.fetchall():
            parts += ["", title, format_table(rows.columns, found)]
    mean, random = ("none" if values[name] is None else f"{values[name]:.2f}" for name in ("score", "random"))
    parts += [
        "",
        SASC_KEY,
        "",
        f"{values['scored']} of {values['units']} units scored: mean score {mean} (null units {random}), p < 0.05 for "
        f"{values['significant']} of them" + (f"; {values['failed']} failed" if values["failed"] else ""),
    ]
    return "\n".join(parts)


def _sasc_units(scored: int, seed: int) -> list[tuple[str, str]]:
    """Titles and queries of the explanations to show: all where there are few."""
    select = f"""SELECT module, "index", polarity AS sign, score,
        printf('%.2f to %.2f', ci_low, ci_high) AS interval, p_value AS p, text
        FROM {_SASC_ROWS} WHERE score IS NOT NULL ORDER BY"""
    if scored <= SHOWN:
        return [("Explanations from n-grams", f"{select} score DESC")]
    return [
        ("Best explained by n-grams", f"{select} score DESC LIMIT {SHOWN // 2}"),
        ("Drawn at random", f'{select} hash(module, "index", polarity, {seed}) LIMIT {SHOWN // 2}'),
    ]


def _values(connection: DuckDBPyConnection, sql: str) -> dict[str, Any]:
    row = connection.sql(sql)
    return dict(zip(row.columns, row.fetchall()[0], strict=True))


def _sentence(values: dict[str, float | None]) -> str:
    def number(name: str) -> str:
        value = values[name]
        return "none" if value is None else f"{value:.3f}"

    share, dead = values["above_control"], values["dead"]
    silent = f"; {dead} dead, as they fire nowhere that the explainer may see" if dead else ""
    return (
        f"{values['scored']} of {values['units']} units scored: mean correlation {number('correlation')} "
        f"(random sequences alone {number('correlation_random')}), shuffled control {number('control')}, "
        f"token lookup {number('lookup')}; interval above the control for {0 if share is None else share:.0%} of them{silent}"
    )


REPORTS = (
    MethodReport("scores", TOP_EXPLANATIONS, _of_simulation),
    MethodReport("sasc_scores", TOP_THEMES, _of_sasc),
)
"""Of each method, the default one first."""
