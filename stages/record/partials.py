"""The partial tables that a scan of a part of the corpus leaves, from which any range of units is merged."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import TableSchema, column
from stages.record.histogram import join_zero_bins
from stages.record.sums import TopSums, UniformRows, UnitSums
from stages.record.tokens import TokenTable

UNIFORM = "uniform"
"""Band of the partial exemplars that are kept for every unit; `merge` tells `random` from `quantile`."""
TOKEN_BLOCK = 64
"""Units of a row of partial token sums."""

_UNIT = [
    column("module", pa.string(), "place in the subject, such as layers.3.mlp"),
    column("index", pa.int32(), "number of the unit in its module"),
]

PARTIAL_UNITS = TableSchema(
    "partial_units",
    1,
    pa.schema(
        [
            *_UNIT,
            column("n_tokens", pa.int64(), "tokens scanned, NaN and infinite activations among them"),
            column("n_nonfinite", pa.int64(), "tokens whose activation was NaN or infinite"),
            column("n_above", pa.int64(), "tokens above the firing threshold"),
            column("min", pa.float32(), "smallest finite activation, inf without any"),
            column("max", pa.float32(), "largest finite activation, -inf without any"),
            column("power_sums", pa.list_(pa.float64()), "sums of x, x^2, x^3, x^4, each as a leading part and a rest"),
            column("histogram", pa.list_(pa.int64()), "tokens in each of the 255 bins"),
            column("min_count", pa.int64(), "tokens with at least this many occurrences are in partial_tokens"),
        ]
    ),
    units_per_group=64,
    folder="_partials/units",
)

PARTIAL_EXEMPLARS = TableSchema(
    "partial_exemplars",
    2,
    pa.schema(
        [
            *_UNIT,
            column("polarity", pa.string(), "'+' or '-' for top, empty for uniform"),
            column("band", pa.string(), "top, or uniform: kept for every unit"),
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column(
                "key", pa.int64(), "hash of the tokens around the peak of a top sequence, 0 without record.distinct"
            ),
            column("activations", pa.list_(pa.float32()), "activation of every token, NaN at those that do not count"),
        ]
    ),
    units_per_group=64,
    folder="_partials/exemplars",
)

PARTIAL_TOKENS = TableSchema(
    "partial_tokens",
    1,
    pa.schema(
        [
            column("module", pa.string(), "place in the subject, such as layers.3.mlp"),
            column("index", pa.int32(), "first unit of the block that the row is about"),
            column("token_id", pa.int32(), "a token of the explain sequences"),
            column("count", pa.int64(), "its occurrences in this part of the corpus"),
            column("sums", pa.list_(pa.float64()), "sum of its activations for each unit of the block"),
        ]
    ),
    units_per_group=1,
    folder="_partials/tokens",
)

Uniform = Mapping[int, UniformRows]
"""The uniformly kept sequences by seq_id."""


def unit_rows(module: str, sums: UnitSums, min_count: int) -> pa.Table:
    """Rows of PARTIAL_UNITS."""
    units = len(sums.minimum)
    powers = sums.power_sums.transpose(2, 0, 1).reshape(units, 8)
    columns = {
        "module": pa.repeat(module, units),
        "index": np.arange(units, dtype=np.int32),
        "n_tokens": np.full(units, sums.n_tokens),
        "n_nonfinite": sums.n_nonfinite,
        "n_above": sums.above,
        "min": sums.minimum,
        "max": sums.maximum,
        "power_sums": _lists(powers),
        "histogram": _lists(join_zero_bins(sums.histogram)),
        "min_count": np.full(units, min_count),
    }
    return pa.table(columns, schema=PARTIAL_UNITS.schema)


def exemplar_rows(module: str, sums: UnitSums, uniform: Uniform, lengths: Mapping[int, int], units: range) -> pa.Table:
    """Rows of PARTIAL_EXEMPLARS of some units, by index: `top` of each polarity by seq_id, then `uniform` by seq_id.

    Args:
        lengths: real tokens of each scanned sequence.
    """
    tables = [_top_rows(module, polarity, top, lengths, units) for polarity, top in sums.top.items()]
    if uniform:
        tables.append(_uniform_rows(module, uniform, units))
    number = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    joined = pa.concat_tables([PARTIAL_EXEMPLARS.schema.empty_table(), *tables])
    return joined.take(pa.array(np.lexsort([number, joined["index"].to_numpy()])))


def _top_rows(module: str, polarity: str, top: TopSums, lengths: Mapping[int, int], units: range) -> pa.Table:
    part = slice(units.start, units.stop)
    order = np.argsort(top.seq_ids[part], axis=1)
    seq_ids, keys, values = (
        np.take_along_axis(array[part], order, axis=1) for array in (top.seq_ids, top.keys, top.values)
    )
    used = np.isfinite(values)
    vectors = np.take_along_axis(top.vectors[part], order[:, :, None], axis=1)[used]
    distinct, places = np.unique(seq_ids[used], return_inverse=True)
    sizes = np.asarray([lengths[seq_id] for seq_id in distinct.tolist()], dtype=np.int64)[places]
    within = np.arange(vectors.shape[1]) < sizes[:, None]
    columns = {
        "module": pa.repeat(module, len(sizes)),
        "index": np.broadcast_to(np.asarray(units, dtype=np.int32)[:, None], used.shape)[used],
        "polarity": pa.repeat(polarity, len(sizes)),
        "band": pa.repeat("top", len(sizes)),
        "seq_id": seq_ids[used],
        "key": keys[used],
        "activations": pa.ListArray.from_arrays(_offsets(sizes), pa.array(vectors[within])),
    }
    return pa.table(columns, schema=PARTIAL_EXEMPLARS.schema)


def _uniform_rows(module: str, uniform: Uniform, units: range) -> pa.Table:
    kept = sorted(uniform)
    blocks = [uniform[seq_id].block(units.start, units.stop).T for seq_id in kept]
    count = len(kept) * len(units)
    columns = {
        "module": pa.repeat(module, count),
        "index": np.repeat(np.asarray(units, dtype=np.int32), len(kept)),
        "polarity": pa.repeat("", count),
        "band": pa.repeat(UNIFORM, count),
        "seq_id": np.tile(np.asarray(kept, np.int64), len(units)),
        "key": np.zeros(count, np.int64),
        "activations": pa.ListArray.from_arrays(
            _offsets(np.tile([block.shape[1] for block in blocks], len(units))),
            pa.array(np.concatenate(blocks, axis=1).ravel()),
        ),
    }
    return pa.table(columns, schema=PARTIAL_EXEMPLARS.schema)


def token_rows(module: str, sums: UnitSums, tokens: TokenTable, occurrences: npt.NDArray[np.int64]) -> list[pa.Table]:
    """Rows of PARTIAL_TOKENS: blocks of units, and in each the tokens that occurred, by rising id.

    Args:
        occurrences: (V,) occurrences of the covered tokens.
    """
    used = np.flatnonzero(occurrences)
    tables = []
    for start in range(0, sums.token_sums.shape[1], TOKEN_BLOCK):
        columns = {
            "module": pa.repeat(module, len(used)),
            "index": np.full(len(used), start, np.int32),
            "token_id": tokens.token_ids[used].astype(np.int32),
            "count": occurrences[used],
            "sums": _lists(sums.token_sums[used, start : start + TOKEN_BLOCK]),
        }
        tables.append(pa.table(columns, schema=PARTIAL_TOKENS.schema))
    return tables


def _lists(values: npt.NDArray[np.generic]) -> pa.ListArray:
    """A list for each row of a matrix."""
    offsets = np.arange(values.shape[0] + 1, dtype=np.int32) * np.int32(values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))


def _offsets(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
