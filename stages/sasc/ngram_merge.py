"""The ngrams.merge stage: from partial responses to the mean, the spread and the top n-grams of every unit.

However the list was cut into shards, the rows are the same (see stages/sasc/responses.py).
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, chunks, numbered_shards
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import modules_of
from stages.sasc import Sasc
from stages.sasc.sasc_estimates import made_up_ngrams
from stages.sasc.sasc_tables import NGRAM_LIST, NGRAM_PARTIALS, NGRAMS, RESPONSES
from stages.sasc.sasc_units import polarities_of, with_nulls

if TYPE_CHECKING:
    import pandas as pd

SHARD_UNITS = 512
EXAMPLE = 40
"""Characters of an n-gram in a message."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the rows beyond the partials."""
    return {"kept": config[Sasc].kept, "polarities": config[Sasc].polarities}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most SHARD_UNITS of the scanned units of a module."""
    rows = tables.read(NGRAM_PARTIALS, columns=["module", "index"]).to_pandas().drop_duplicates()
    return numbered_shards(
        {"module": module, "first": part[0], "last": part[-1]}
        for module in modules_of(with_nulls(config))
        for part in chunks(sorted(rows["index"][rows["module"] == module].tolist()), SHARD_UNITS)
    )


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Merge the partials of a range of units of a module."""
    from pipeline.subjects.activation_sources import describe_modules

    module, first, last = shard.key["module"], shard.key["first"], shard.key["last"]
    modules = context.once("modules", lambda config: describe_modules(with_nulls(config)))
    where = (pc.field("module") == module) & (pc.field("index") >= first) & (pc.field("index") <= last)
    partials = context.tables.read(NGRAM_PARTIALS, where)
    ngrams = context.once("list", lambda _: context.tables.read(NGRAM_LIST).to_pandas().set_index("ngram_id"))
    polarities = polarities_of(context.config, module, modules[module].signed)
    return merge(partials, polarities, context.config[Sasc].kept, ngrams)


def merge(partials: pa.Table, polarities: Sequence[str], kept: int, ngrams: "pd.DataFrame") -> Mapping[str, pa.Table]:
    """Rows of RESPONSES and of NGRAMS.

    A unit whose module failed on any part of the list, or that gives a number that is not finite, has no mean and no
    n-grams: its status is `failed`. One that responds to all n-grams alike is `dead`.

    Args:
        partials: rows of NGRAM_PARTIALS of units of one module, of any parts of the list.
        polarities: those that get rows.
        kept: n-grams for each unit and polarity.
        ngrams: the list, by ngram_id.
    """
    responses: list[pd.DataFrame] = []
    top: list[pd.DataFrame] = []
    for polarity in polarities:
        given = pc.field("polarity")
        found = _merge_polarity(partials.filter(given.is_null() | (given == polarity)), polarity, kept, ngrams)
        for rows, tables in zip(found, (responses, top), strict=True):
            tables.append(rows.assign(module=partials["module"][0].as_py(), polarity=polarity))
    return {
        RESPONSES.name: _in_unit_order(responses, RESPONSES.schema),
        NGRAMS.name: _in_unit_order(top, NGRAMS.schema),
    }


def _merge_polarity(
    partials: pa.Table, polarity: str, kept: int, ngrams: "pd.DataFrame"
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Units with their moments and status, and their top n-grams."""
    largest, smallest = (_lists(partials, column) for column in ("largest", "smallest"))
    columns = ["index", "n_ngrams", "n_nonfinite", "first_nonfinite", "sums", "error"]
    groups = partials.select(columns).to_pandas().groupby("index")
    units = groups.agg({"n_ngrams": "sum", "n_nonfinite": "sum", "first_nonfinite": "min", "error": "first"})
    units["sums"] = groups["sums"].agg(list)
    units["constant"] = largest.groupby("index")["response"].max() == smallest.groupby("index")["response"].min()
    units[["mean", "sigma"]] = [
        mean_and_sigma(unit.n_ngrams - unit.n_nonfinite, unit.sums) for unit in units.itertuples()
    ]
    units[["status", "error"]] = [_outcome(unit, ngrams) for unit in units.itertuples()]
    units.loc[units["status"] == "failed", ["mean", "sigma"]] = np.nan
    units.loc[units["status"] == "dead", "sigma"] = 0.0
    top = largest if polarity == "+" else smallest
    top = top[top["index"].isin(units.index[units["status"] == "ok"])]
    top = top.sort_values(["index", "response", "ngram_id"], ascending=[True, polarity == "-", True])
    top["rank"] = top.groupby("index").cumcount()
    return units.reset_index(), top[top["rank"] < kept].join(ngrams, on="ngram_id")


def _lists(partials: pa.Table, column: str) -> "pd.DataFrame":
    """One row for each n-gram in the lists of a column."""
    lists = partials[column].combine_chunks()
    entries = pa.Table.from_struct_array(lists.flatten()).to_pandas()
    return entries.assign(index=np.repeat(partials["index"].to_numpy(), lists.value_lengths().to_numpy()))


def mean_and_sigma(count: int, sums: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and population standard deviation, the sums taken as they are; NaN where they are not finite or of nothing.

    Args:
        count: finite responses.
        sums: of each part of the list, the TERMS numbers of the sum of x and then those of x^2.
    """
    if not count or not np.isfinite(sums).all():
        return math.nan, math.nan
    terms = np.asarray(sums).reshape(len(sums), 2, -1)
    mean, square = (sum(map(Fraction, terms[:, power].ravel().tolist()), Fraction(0)) / count for power in range(2))
    return float(mean), math.sqrt(max(square - mean * mean, Fraction(0)))


def _outcome(unit: Any, ngrams: "pd.DataFrame") -> tuple[str, str | None]:
    """Status and error of a unit."""
    if isinstance(unit.error, str):
        return "failed", unit.error
    if unit.n_nonfinite:
        number = int(unit.first_nonfinite)
        return "failed", (
            f"{unit.n_nonfinite} of {unit.n_ngrams} responses are NaN or infinite, one of them to n-gram {number} "
            f"({ngrams['text'][number][:EXAMPLE]!r}); give a number for every text"
        )
    if not unit.n_ngrams:
        return "failed", "no n-gram of the list has a response"
    if not np.isfinite(unit.sigma):
        return "failed", "the responses are too large for their squares to be added up"
    return ("dead", "the response to all n-grams is the same") if unit.constant else ("ok", None)


def _in_unit_order(frames: "Sequence[pd.DataFrame]", schema: pa.Schema) -> pa.Table:
    """Rows by unit; of a unit, those of the first frame first."""
    import pandas as pd

    rows = pd.concat(frames).sort_values("index", kind="stable")
    return pa.Table.from_pandas(rows[schema.names], schema, preserve_index=False)


MERGE = Stage(
    name="ngrams.merge",
    title="merge responses",
    reads=("ngrams.scan", "ngrams.list"),
    writes=(NGRAMS, RESPONSES),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
    estimate=EstimateHints(made_up_tables=made_up_ngrams),
)
