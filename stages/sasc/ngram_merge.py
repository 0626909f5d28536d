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
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, Unit, chunks, numbered_shards
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import modules_of
from stages.estimates import filled
from stages.sasc import Sasc
from stages.sasc.sasc_tables import NGRAM_LIST, NGRAM_PARTIALS, NGRAMS, RESPONSES
from stages.sasc.sasc_units import polarities_of, units_to_explain, with_nulls

if TYPE_CHECKING:
    import pandas as pd

SHARD_UNITS = 512
SEQUENCES = 64
"""Sequences that made-up n-grams are taken from."""
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
    import pandas as pd

    given, found = pc.field("polarity"), []
    for polarity in polarities:
        tables = _merge_polarity(partials.filter(given.is_null() | (given == polarity)), polarity, kept, ngrams)
        found.append([rows.assign(module=partials["module"][0].as_py(), polarity=polarity) for rows in tables])
    merged = {}
    for table, frames in zip((RESPONSES, NGRAMS), zip(*found, strict=True), strict=True):
        rows = pd.concat(frames).sort_values("index", kind="stable")
        merged[table.name] = pa.Table.from_pandas(rows[table.schema.names], table.schema, preserve_index=False)
    return merged


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


def made_up_ngrams(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """Responses of all units that are explained; of the units given, n-grams drawn from the corpus."""
    modules, polarities, indices = zip(*units_to_explain(config), strict=True)
    responses = {"module": modules, "polarity": polarities, "index": indices, "status": ["ok"] * len(modules)}
    sequences = tables.read(CORPUS, columns=["tokens"]).slice(0, SEQUENCES)["tokens"].to_pylist() if units else []
    listed, generator = _distinct_ngrams(config[Sasc], sequences), np.random.default_rng(config.run.seed)
    rows = [
        {"module": module, "polarity": polarity, "index": index, "rank": rank, "text": listed[place], "response": -float(rank)}
        for module, polarity, index in units
        for rank, place in enumerate(generator.permutation(len(listed))[: config[Sasc].kept].tolist())
    ]  # fmt: skip
    return {RESPONSES.name: filled(RESPONSES, responses), NGRAMS.name: NGRAMS.of_rows(rows)}


def _distinct_ngrams(sasc: Sasc, sequences: Sequence[list[str]]) -> list[str]:
    """The n-grams of some sequences of tokens, words told by the white space between them."""
    between = "" if sasc.pieces == "tokens" else " "
    pieces = ["".join(tokens).split() if between else tokens for tokens in sequences]
    sizes = sorted(set(sasc.sizes))
    return list(
        dict.fromkeys(
            between.join(own[start : start + n]) for own in pieces for n in sizes for start in range(len(own) - n + 1)
        )
    )


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
