"""What a finished run says at its end: where the dataset is, how to query it, and some of its explanations."""

from pathlib import Path

from pipeline.query import format_table, open_views

_COLUMNS = """module, "index", correlation AS r, CASE WHEN ci_low IS NULL THEN NULL
    ELSE printf('%.2f to %.2f', ci_low, ci_high) END AS interval, correlation_shuffled AS control, text"""
_CHOSEN = "status <> 'not_selected'"
SUMMARY = f"""
SELECT count(*) AS units, count(correlation) AS scored, count(*) FILTER (status = 'dead') AS dead, avg(correlation) AS correlation,
       avg(correlation_random) AS correlation_random, avg(correlation_shuffled) AS control,
       avg(correlation_lookup) AS lookup,
       count(*) FILTER (ci_low > correlation_shuffled) / nullif(count(correlation), 0) AS above_control
FROM scores WHERE {_CHOSEN}"""


def final_report(root: Path, seed: int) -> str:
    """Where the dataset is, how to query it, the best explanations and some drawn at random."""
    connection = open_views(root)
    parts = [
        f"Dataset: {root}/scores/*.parquet (and units, exemplars, explanations, simulations beside it)",
        f'Query:   make query SQL="SELECT text, correlation FROM scores ORDER BY correlation DESC" RUN={root}',
    ]
    for title, order, limit in (
        ("Best explained", "correlation DESC NULLS LAST", 8),
        ("Drawn at random", f'hash(module, "index", {seed})', 8),
    ):
        rows = connection.sql(f"SELECT {_COLUMNS} FROM scores WHERE {_CHOSEN} ORDER BY {order} LIMIT {limit}")
        parts += ["", title, format_table(rows.columns, rows.fetchall())]
    summary = connection.sql(SUMMARY)
    values = dict(zip(summary.columns, summary.fetchall()[0], strict=True))
    parts += ["", _sentence(values)]
    return "\n".join(parts)


def _sentence(values: dict[str, float | None]) -> str:
    def number(name: str) -> str:
        value = values[name]
        return "none" if value is None else f"{value:.3f}"

    share, dead = values["above_control"], values["dead"]
    silent = f"; {dead} units are dead, they fire nowhere that the explainer may see" if dead else ""
    return (
        f"{values['scored']} of {values['units']} units scored: mean correlation {number('correlation')} "
        f"(random sequences alone {number('correlation_random')}), shuffled control {number('control')}, "
        f"token lookup {number('lookup')}; interval above the control for {0 if share is None else share:.0%} of them{silent}"
    )
