"""What is said of the explanations of a finished run: the best, some drawn at random, and the means of their scores and controls."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.execution.stage import MethodReport
from pipeline.results.discoveries import discoveries
from stages.score.score_units import SCORES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOP_EXPLANATIONS = """
SELECT module, "index", correlation_corpus AS corpus, correlation, ci_low, ci_high, correlation_shuffled AS control, text
FROM scores WHERE correlation IS NOT NULL
ORDER BY correlation DESC, module, "index", polarity, explainer, candidate, simulator LIMIT 20"""
"""By the correlation, which every run has and by which the other ready-made queries go; an imported one has none on the corpus."""
_COLUMNS = """module, "index", correlation_corpus AS corpus, CASE WHEN correlation_corpus_low IS NULL THEN NULL
    ELSE printf('%.2f to %.2f', correlation_corpus_low, correlation_corpus_high) END AS interval,
    correlation_corpus_shuffled AS control, correlation AS r, text"""
_KEYS = 'module, "index", polarity, explainer, candidate, simulator'
_CHOSEN = "status <> 'not_selected'"
MEANS = {
    "correlation_corpus": "correlation on the corpus as it is",
    "correlation_corpus_shuffled": "  explanations of other units (control)",
    "correlation_corpus_lookup": "  mean activation of every token, no words (baseline)",
    "correlation": "correlation on top and random sequences",
    "correlation_shuffled": "  explanations of other units (control)",
    "correlation_lookup": "  mean activation of every token, no words (baseline)",
    "correlation_top_token": "  one token named",
    "correlation_constant": "  one sentence for every unit",
    "correlation_inverted": "  the opposite of the explanation",
    "correlation_random": "correlation on random sequences alone",
}
"""Columns whose means over the units are told, and what they are."""
SUMMARY = f"""
SELECT explainer, simulator, count(*) AS units, count(*) FILTER (status = 'dead') AS dead,
       {", ".join(f"avg({name}) AS {name}, count({name}) AS n_{name}" for name in MEANS)}
FROM scores WHERE {_CHOSEN} GROUP BY explainer, simulator ORDER BY explainer, simulator"""


def describe(connection: "DuckDBPyConnection", root: Path, seed: int) -> str:
    """What a finished run says of its explanations: the best, some drawn at random, and their scores with the controls."""
    from pipeline.commands.query import format_table

    parts = [
        f"Dataset: {root}/scores/*.parquet (and units, exemplars, explanations, simulations beside it)",
        f'Query:   make query SQL="SELECT text, correlation_corpus FROM scores ORDER BY 2 DESC" RUN={root}',
    ]
    several = connection.sql(SUMMARY).to_arrow_table().to_pylist()
    columns = _COLUMNS if len(several) < 2 else f"{_COLUMNS}, explainer, simulator"
    for title, order, limit in (
        ("Best explained", f"correlation_corpus DESC NULLS LAST, correlation DESC NULLS LAST, {_KEYS}", 8),
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


REPORT = MethodReport(
    SCORES.name,
    TOP_EXPLANATIONS,
    describe,
    score="correlation",
    numbers={
        "corpus": "correlation_corpus",
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
