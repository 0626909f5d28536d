"""From partial responses to the rows of the tables `responses` and `ngrams`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.sasc.responses import NONE, TERMS, best
from stages.sasc.sasc_tables import NGRAMS, RESPONSES

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
COLUMN = {"+": ("largest", 1.0), "-": ("smallest", -1.0)}
"""The column of the partials for a polarity, and the sign under which its responses fall."""
EXAMPLE = 40
"""Characters of an n-gram in a message."""


@dataclass(frozen=True)
class Outcome:
    """What became of a unit."""

    status: str
    error: str | None


def merge(
    partials: Sequence[pa.Table], polarities: Sequence[str], kept: int, ngrams: pa.Table
) -> tuple[pa.Table, pa.Table]:
    """Rows of RESPONSES and of NGRAMS.

    A unit whose module failed on any part of the list, or that gives a number that is not finite, has no mean and no
    n-grams: its status is `failed`. One that responds to all n-grams alike is `dead`.

    Args:
        partials: rows of NGRAM_PARTIALS of the same units of one module, one table for each part of the list and one row
            for each unit.
        polarities: those that get rows.
        kept: n-grams for each unit and polarity.
        ngrams: the list, by ngram_id from 0 on.
    """
    keys = partials[0].select(["module", "index"])
    units = len(keys)
    counts = np.sum([part["n_ngrams"].to_numpy() for part in partials], axis=0)
    nonfinite = np.sum([part["n_nonfinite"].to_numpy() for part in partials], axis=0)
    mean, sigma = _moments(partials, counts - nonfinite)
    tops = {polarity: _strongest(partials, units, polarity, kept) for polarity in COLUMN}
    outcomes = _outcomes(partials, counts, nonfinite, sigma, _constant(tops, units), ngrams["text"])
    known = np.asarray([outcome.status != "failed" for outcome in outcomes])
    answered = np.asarray([outcome.status == "ok" for outcome in outcomes])
    rows = {
        "n_ngrams": counts,
        "n_nonfinite": nonfinite,
        "mean": pa.array(mean, mask=~known),
        "sigma": pa.array(np.where(answered, sigma, 0.0), mask=~known),
        "status": [outcome.status for outcome in outcomes],
        "error": pa.array([outcome.error for outcome in outcomes], pa.string()),
    }
    columns = {name: keys[name] for name in keys.schema.names} | rows
    responses = in_unit_order(
        [_with_polarity(pa.table(columns), polarity) for polarity in polarities], RESPONSES.schema
    )
    strongest = [_ngram_rows(keys, polarity, tops[polarity], answered, ngrams) for polarity in polarities]
    return responses, in_unit_order(strongest, NGRAMS.schema)


def mean_and_sigma(count: int, terms: Sequence[Doubles]) -> tuple[float, float]:
    """Mean and population standard deviation, the sums taken as they are; NaN where they are not finite or of nothing.

    Args:
        count: finite responses.
        terms: (2, TERMS) sums of x and of x^2 of each part of the list.
    """
    if not count or not all(np.isfinite(part).all() for part in terms):
        return math.nan, math.nan
    mean, square = (
        sum((Fraction(term) for part in terms for term in part[power].tolist()), Fraction(0)) / count
        for power in range(2)
    )
    return float(mean), math.sqrt(max(square - mean * mean, Fraction(0)))


def _moments(partials: Sequence[pa.Table], counts: Ints) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation of each unit."""
    lists = [part["sums"].combine_chunks().flatten().to_numpy().reshape(len(counts), 2, TERMS) for part in partials]
    found = [mean_and_sigma(count, [part[unit] for part in lists]) for unit, count in enumerate(counts.tolist())]
    mean, sigma = np.asarray(found, np.float64).reshape(-1, 2).T
    return mean, sigma


Top = tuple[Ints, Doubles, Ints]
"""Unit, response and ngram_id, by unit and rank."""


def _strongest(partials: Sequence[pa.Table], units: int, polarity: str, kept: int) -> Top:
    column, sign = COLUMN[polarity]
    lists = [part[column].combine_chunks() for part in partials]
    owners = np.concatenate([np.repeat(np.arange(units), part.value_lengths().to_numpy()) for part in lists])
    entries = [part.flatten() for part in lists]
    values = np.concatenate([part.field("response").to_numpy() for part in entries])
    ids = np.concatenate([part.field("ngram_id").to_numpy() for part in entries])
    order = best(owners, sign * values, ids, kept)
    return owners[order], values[order], ids[order]


def _constant(tops: dict[str, Top], units: int) -> npt.NDArray[np.bool_]:
    """(U,) whether the largest response is the smallest."""
    extremes = []
    for owners, values, _ in tops.values():
        extreme = np.full(units, np.nan)
        first = np.unique(owners, return_index=True)[1]
        extreme[owners[first]] = values[first]
        extremes.append(extreme)
    found: npt.NDArray[np.bool_] = extremes[0] == extremes[1]
    return found


def _outcomes(
    partials: Sequence[pa.Table],
    counts: Ints,
    nonfinite: Ints,
    sigma: Doubles,
    constant: npt.NDArray[np.bool_],
    texts: pa.ChunkedArray,
) -> list[Outcome]:
    errors = [part["error"].to_pylist() for part in partials]
    firsts = np.min([part["first_nonfinite"].fill_null(NONE).to_numpy() for part in partials], axis=0)
    found = []
    for unit, (count, bad) in enumerate(zip(counts.tolist(), nonfinite.tolist(), strict=True)):
        error = next((part[unit] for part in errors if part[unit] is not None), None)
        if error is None and bad:
            number = int(firsts[unit])
            example = f"n-gram {number} ({texts[number].as_py()[:EXAMPLE]!r})"
            error = f"{bad} of {count} responses are NaN or infinite, one of them to {example}; give a number for every text"
        elif error is None and not count:
            error = "no n-gram of the list has a response"
        elif error is None and not np.isfinite(sigma[unit]):
            error = "the responses are too large for their squares to be added up"
        if error is not None:
            found.append(Outcome("failed", error))
        elif constant[unit]:
            found.append(Outcome("dead", "the response to all n-grams is the same"))
        else:
            found.append(Outcome("ok", None))
    return found


def _with_polarity(table: pa.Table, polarity: str) -> pa.Table:
    return table.append_column("polarity", pa.repeat(polarity, table.num_rows))


def _ngram_rows(keys: pa.Table, polarity: str, top: Top, answered: npt.NDArray[np.bool_], ngrams: pa.Table) -> pa.Table:
    owners, values, ids = (part[answered[top[0]]] for part in top)
    starts = np.searchsorted(owners, owners, side="left")
    known = ngrams.take(pa.array(ids))
    columns = {name: keys[name].take(pa.array(owners)) for name in keys.schema.names}
    columns |= {"rank": pa.array(np.arange(len(owners)) - starts), "response": pa.array(values)}
    columns |= {name: known[name] for name in known.schema.names}
    return _with_polarity(pa.table(columns), polarity)


def in_unit_order(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of some tables of a module by unit; of a unit, those of the first table first."""
    joined = pa.concat_tables([table.select(schema.names).cast(schema) for table in tables] or [schema.empty_table()])
    order = np.argsort(joined["index"].to_numpy(), kind="stable")
    return joined.take(pa.array(order))
