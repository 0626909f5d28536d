"""The partial tables: `scan` writes them for a part of the corpus, and `merge` reads any range of units from them.

Activations are plain bytes of float32, which take half as long to write and to read as lists. Uniformly kept sequences have one
row for each block of units.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schemas import TableSchema, column
from stages.record.backends.contract import UnitSums, Vectors
from stages.record.recorded_batch import TokenTable
from stages.record.sequences import POLARITIES, SIGNS
from stages.record.unit_statistics import join_zero_bins

BLOCK = 64
"""Units of a row of partial token sums, and of uniformly kept activations."""
UNITS_AT_ONCE = 512
"""Units whose rows are made at a time, and lie in one row group: a multiple of BLOCK. Fewer would be read as fast, but the footers
of many parts of a corpus are in memory at once when they are merged."""


def _table(name: str, version: int, units_per_group: int, *columns: pa.Field) -> TableSchema:
    schema, folder = pa.schema([*columns]), f"_partials/{name}"
    return TableSchema(
        f"partial_{name}", version, schema, units_per_group=units_per_group, folder=folder, temporary=True
    )


_MODULE = column("module", pa.string(), "place in the subject, such as layers.3.mlp")
_UNIT = [_MODULE, column("index", pa.int32(), "number of the unit in its module")]
_BLOCK = [_MODULE, column("index", pa.int32(), "first unit of the block that the row is about")]

PARTIAL_UNITS = _table(
    "units",
    2,
    UNITS_AT_ONCE,
    *_UNIT,
    column("polarities", pa.string(), "'+', '-' or '+-': those recorded"),
    column("n_tokens", pa.int64(), "tokens scanned, NaN and infinite activations among them"),
    column("n_nonfinite", pa.int64(), "tokens whose activation was NaN or infinite"),
    column("n_above", pa.int64(), "tokens above the firing threshold"),
    column("min", pa.float32(), "smallest finite activation, inf without any"),
    column("max", pa.float32(), "largest finite activation, -inf without any"),
    column("power_sums", pa.list_(pa.float64()), "sums of x, x^2, x^3, x^4, each as a leading part and a rest"),
    column("histogram", pa.list_(pa.int64()), "tokens in each of the 255 bins"),
    column("min_count", pa.int64(), "tokens with at least this many occurrences are in partial_tokens"),
)

PARTIAL_EXEMPLARS = _table(
    "exemplars",
    2,
    UNITS_AT_ONCE,
    *_UNIT,
    column("polarity", pa.int8(), "1 for '+', -1 for '-'"),
    column("seq_id", pa.int64(), "the sequence in `corpus`"),
    column("key", pa.int64(), "neighbourhood of the peak; sequences with equal ones count once"),
    column("value", pa.float32(), "largest activation in the polarity, that of -x for '-'"),
    column("activations", pa.binary(), "float32 of every token, NaN where it does not count"),
)

PARTIAL_UNIFORM = _table(
    "uniform",
    1,
    UNITS_AT_ONCE // BLOCK,
    *_BLOCK,
    column("width", pa.int32(), "units of the block"),
    column("seq_id", pa.int64(), "the sequence in `corpus`"),
    column("activations", pa.binary(), "float32 of every token of every unit of the block, by token"),
)

PARTIAL_TOKENS = _table(
    "tokens",
    1,
    UNITS_AT_ONCE // BLOCK,
    *_BLOCK,
    column("token_id", pa.int32(), "a token of the explain sequences"),
    column("count", pa.int64(), "its occurrences in this part of the corpus"),
    column("sums", pa.list_(pa.float64()), "sum of its activations for each unit of the block"),
)

PARTIALS = (PARTIAL_UNITS, PARTIAL_TOKENS, PARTIAL_UNIFORM, PARTIAL_EXEMPLARS)
BY_BLOCK = {PARTIAL_TOKENS.name, PARTIAL_UNIFORM.name}
"""Tables whose rows are about BLOCK units."""


def unit_rows(module: str, sums: UnitSums, min_count: int) -> pa.Table:
    """Rows of PARTIAL_UNITS."""
    units = len(sums.minimum)
    powers = sums.power_sums.transpose(2, 0, 1).reshape(units, 8)
    columns = {
        "module": pa.repeat(module, units),
        "index": np.arange(units, dtype=np.int32),
        "polarities": pa.repeat("".join(polarity for polarity in POLARITIES if polarity in sums.top), units),
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


def exemplar_rows(module: str, sums: UnitSums, lengths: Mapping[int, int]) -> Iterator[pa.Table]:
    """Rows of PARTIAL_EXEMPLARS, some units at a time: by unit, polarity, and the slots in their order.

    Args:
        lengths: real tokens of each scanned sequence.
    """
    polarities = [polarity for polarity in POLARITIES if polarity in sums.top]
    for start in range(0, len(sums.minimum) if polarities else 0, UNITS_AT_ONCE):
        part = slice(start, start + UNITS_AT_ONCE)
        values, seq_ids, keys, vectors = (
            np.stack([getattr(sums.top[polarity], name)[part] for polarity in polarities], axis=1)
            for name in ("values", "seq_ids", "keys", "vectors")
        )
        used = np.isfinite(values)  # (U, P, K)
        unit, polarity, _ = np.nonzero(used)
        columns = {
            "module": pa.repeat(module, len(unit)),
            "index": (unit + start).astype(np.int32),
            "polarity": np.asarray([SIGNS[polarity] for polarity in polarities], np.int8)[polarity],
            "seq_id": seq_ids[used],
            "key": keys[used],
            "value": values[used],
            "activations": _bytes(vectors[used], [lengths[seq_id] for seq_id in seq_ids[used].tolist()]),
        }
        yield pa.table(columns, schema=PARTIAL_EXEMPLARS.schema)


def uniform_rows(module: str, uniform: Mapping[int, Vectors], width: int) -> Iterator[pa.Table]:
    """Rows of PARTIAL_UNIFORM, a block of units at a time, by seq_id.

    Args:
        uniform: the uniformly kept sequences by seq_id.
        width: units of the module.
    """
    seq_ids = sorted(uniform)

    def rows(start: int) -> pa.Table:
        blocks = [uniform[seq_id][start : start + BLOCK].T for seq_id in seq_ids]  # (T, BLOCK)
        columns = {
            "module": pa.repeat(module, len(seq_ids)),
            "index": np.full(len(seq_ids), start, np.int32),
            "width": np.full(len(seq_ids), min(BLOCK, width - start), np.int32),
            "seq_id": np.asarray(seq_ids, np.int64),
            "activations": pa.array([block.astype("<f4").tobytes() for block in blocks], pa.binary()),
        }
        return pa.table(columns, schema=PARTIAL_UNIFORM.schema)

    return _by_group(rows, width if seq_ids else 0)


def token_rows(
    module: str, sums: UnitSums, tokens: TokenTable, occurrences: npt.NDArray[np.int64]
) -> Iterator[pa.Table]:
    """Rows of PARTIAL_TOKENS: blocks of units, and in each the tokens that occurred, by rising id.

    Args:
        occurrences: (V,) occurrences of the covered tokens.
    """
    used = np.flatnonzero(occurrences)

    def rows(start: int) -> pa.Table:
        columns = {
            "module": pa.repeat(module, len(used)),
            "index": np.full(len(used), start, np.int32),
            "token_id": tokens.token_ids[used].astype(np.int32),
            "count": occurrences[used],
            "sums": _lists(sums.token_sums[used, start : start + BLOCK]),
        }
        return pa.table(columns, schema=PARTIAL_TOKENS.schema)

    return _by_group(rows, sums.token_sums.shape[1] if len(used) else 0)


def _by_group(rows: Callable[[int], pa.Table], units: int) -> Iterator[pa.Table]:
    """The rows of the blocks that begin at 0, BLOCK, ... up to a number of units; those of a row group together."""
    for first in range(0, units, UNITS_AT_ONCE):
        starts = range(first, min(first + UNITS_AT_ONCE, units), BLOCK)
        yield pa.concat_tables(map(rows, starts)).combine_chunks()


def activation_rows(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The float32 in a column of bytes, (M, T) with NaN behind the end of a row, and the (M,) lengths of the rows."""
    lengths = pc.binary_length(column).to_numpy().astype(np.int64) // 4
    vectors = np.full((len(lengths), lengths.max(initial=0)), np.nan, np.float32)
    flat = np.frombuffer(b"".join(column.to_pylist()), "<f4")
    vectors[np.arange(vectors.shape[1]) < lengths[:, None]] = flat
    return vectors, lengths


def _bytes(vectors: npt.NDArray[np.float32], sizes: list[int]) -> pa.Array:
    """(N, T) vectors as a column of bytes, each row cut to its size."""
    offsets = np.concatenate([[0], 4 * np.cumsum(sizes)]).astype(np.int32)
    flat = vectors[np.arange(vectors.shape[1]) < np.asarray(sizes)[:, None]]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(flat, "<f4"))]
    return pa.Array.from_buffers(pa.binary(), len(sizes), buffers)


def _lists(values: npt.NDArray[np.generic]) -> pa.ListArray:
    """A list for each row of a matrix."""
    offsets = np.arange(values.shape[0] + 1, dtype=np.int32) * np.int32(values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))
