"""Two runs compared on the units that both have scored: differences of their scores, paired by unit.

A difference is the other run's score minus this one's. Where the runs share an explainer, a simulator or a method of judging, scores by the
same one are paired. Where they share none, all of this run are paired with all of the other, as `statistics vs max_activation`.

Beside a score stands its gain over the full token table, where that was scored too: units of a subject with random weights are functions of
tokens as well, and only the gain shows what training adds.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.results.agreement import correlation
from pipeline.results.score_tables import OpenRun, ScoreTable, read, score_tables
from pipeline.schemas import NULL_UNITS, UNIT_KEYS

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
RESAMPLES = 2000
AT_ONCE = 4_000_000
"""Numbers drawn at a time, which bounds the memory of a bootstrap."""
COLUMNS = ["score", "by", "group", "units", "this", "other", "difference", "ci_low", "ci_high", "agreement"]


def paired_scores(run: OpenRun, other: OpenRun) -> "pd.DataFrame":
    """A row for each unit and score that both runs have: `this`, `other` and their `difference`.

    Raises:
        UserError: there is none.
    """
    import pandas as pd

    theirs = {table.name: table for table in score_tables(other)}
    shared = [(mine, theirs[mine.name]) for mine in score_tables(run) if mine.name in theirs]
    found = [
        _pairs(run, other, mine, baseline)
        for mine, their in shared
        if mine.score == their.score
        for baseline in ("", mine.lookup)[: 1 + bool(mine.lookup and their.lookup)]
    ]
    pairs = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    if pairs.empty:
        raise UserError(
            f"{run.root} and {other.root} have no scored unit in common; compare runs of the same subject whose explain.units overlap"
        )
    return pairs


def _pairs(run: OpenRun, other: OpenRun, table: ScoreTable, baseline: str) -> "pd.DataFrame":
    """Those of a table's score, or of what it is above the column `baseline`."""
    methods = ["explainer", *table.methods]
    mine, theirs = _scored(run, table, baseline), _scored(other, table, baseline)
    pairs = mine.merge(theirs, on=UNIT_KEYS, suffixes=("", "_other"))
    for name in methods:
        same = pairs[name] == pairs[f"{name}_other"]
        if same.any():
            pairs = pairs[same]
        else:
            pairs[name] = pairs[name] + " vs " + pairs[f"{name}_other"]
    name = f"{table.score} - {baseline}" if baseline else table.score
    pairs = pairs.rename(columns={"value": "this", "value_other": "other"}).assign(score=name)
    pairs["difference"] = pairs["other"] - pairs["this"]
    return pairs[["score", *UNIT_KEYS, *methods, "this", "other", "difference"]]


def _scored(run: OpenRun, table: ScoreTable, baseline: str) -> "pd.DataFrame":
    """Scores by unit and method; of several candidates with a score, the explainer's own favourite."""
    methods, numbers = ["explainer", *table.methods], [table.score, *([baseline] if baseline else [])]
    rows = read(run, table.name, [*UNIT_KEYS, *methods, "candidate", *numbers]).dropna(subset=numbers)
    if baseline:
        rows[table.score] -= rows.pop(baseline)
    rows = rows[rows["module"] != NULL_UNITS].sort_values([*UNIT_KEYS, "candidate"])
    return rows.drop_duplicates([*UNIT_KEYS, *methods]).rename(columns={table.score: "value"}).drop(columns="candidate")


def compare_runs(run: OpenRun, other: OpenRun) -> "pd.DataFrame":
    """Means of the paired scores and of their differences, with a bootstrap interval over units, and how far the two go together.

    Returns:
        COLUMNS, `agreement` being Pearson's correlation of the two runs' scores over the units: for each score a row over all units, then
        rows `by` explainer, simulator or method of judging, layer and module.

    Raises:
        UserError: the runs have no scored unit in common.
    """
    import pandas as pd

    pairs = paired_scores(run, other)
    pairs["layer"] = pairs["module"].str.extract(r"^layers\.(\d+)\.", expand=False).astype("float").astype("Int64")
    pairs = pairs.sort_values(["layer", "module", "index"], kind="stable")
    rows: list[dict[str, Any]] = []
    for score, scored in pairs.groupby("score", sort=False):
        rows.append({"score": score, "by": "all", "group": "all"} | _summary(scored))
        groupings = scored.columns.difference(["score", *UNIT_KEYS[1:], "this", "other", "difference"], sort=False)
        for name in ["explainer", *groupings.drop(["explainer", "layer", "module"]), "layer", "module"]:
            for group, part in scored.dropna(subset=name).groupby(name, sort=False):
                rows.append({"score": score, "by": name, "group": str(group)} | _summary(part))
    return pd.DataFrame(rows, columns=COLUMNS)


def _summary(pairs: "pd.DataFrame") -> dict[str, Any]:
    low, high = mean_interval(pairs["difference"].to_numpy())
    means = {name: float(pairs[name].mean()) for name in ("this", "other", "difference")}
    agreement = correlation(pairs["this"], pairs["other"])
    return {"units": len(pairs), **means, "ci_low": low, "ci_high": high, "agreement": agreement}


def mean_interval(values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float, float]:
    """The percentile bootstrap interval of a mean; NaN for fewer than two values. It is the same in every call."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return np.nan, np.nan
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=max(1, AT_ONCE // len(values)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
