"""Put every simulated sequence beside its true activations, for all units of a shard at once.

Shapes: R simulated sequences (rows).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.evidence import Exemplar
from stages.score.scorer import Pairs
from stages.statistics import Floats, Ints, sequence_sums

KEYS = ["index", "seq_id", "split"]


def pair(simulations: pa.Table, exemplars: Mapping[int, Sequence[Exemplar]]) -> Pairs:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Only `top` and `random` exemplars are scored on (Bills et al. 2023); a sequence kept for both reasons counts once.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    import pandas as pd

    kept = [(index, one) for index, found in exemplars.items() for one in found if one.band in ("top", "random")]
    truths = pd.DataFrame(
        {
            "index": np.array([index for index, _ in kept], dtype=np.int64),
            "seq_id": np.array([one.seq_id for _, one in kept], dtype=np.int64),
            "split": pd.Series([one.split for _, one in kept], dtype="str"),
            "is_random": np.array([one.band == "random" for _, one in kept], dtype=bool),
            "true": pd.Series([one.activations for _, one in kept], dtype="object"),
        }
    )
    truths = truths.sort_values("is_random", kind="stable").drop_duplicates(KEYS, keep="last")
    rows = simulations.select([*KEYS, "candidate", "control", "source", "status"]).to_pandas()
    rows["simulated"] = np.arange(len(rows))
    rows["candidate"] = rows["candidate"].fillna(-1).astype(np.int64)
    rows = rows[rows["status"] == "ok"].merge(truths, on=KEYS)
    expected, lengths = _flat(simulations["expected"], rows["simulated"])
    coverage, _ = _flat(simulations["coverage"], rows["simulated"])
    wrong = rows[[len(true) != length for true, length in zip(rows["true"], lengths, strict=True)]]
    if len(wrong):
        index, seq_id = wrong.iloc[0][["index", "seq_id"]]
        raise ValueError(f"unit {index}, sequence {seq_id}: as many expected activations as tokens are needed")
    true = np.concatenate([np.zeros(0), *rows["true"]]).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sums = sequence_sums(true, expected, starts, np.repeat(rows["index"].to_numpy(), lengths))
    rows = rows.drop(columns=["simulated", "true"]).assign(place=np.arange(len(rows)))
    return Pairs(rows, sums, starts, true, expected, coverage)


def _flat(lists: pa.ChunkedArray, rows: npt.ArrayLike) -> tuple[Floats, Ints]:
    """The values of some rows of a list column one after the other, and the length of each row."""
    taken = lists.take(pa.array(rows)).combine_chunks()
    lengths = taken.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return taken.flatten().to_numpy(zero_copy_only=False).astype(np.float64), lengths
