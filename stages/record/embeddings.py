"""The record.embed stage: sentence embeddings of the part of the corpus in which hard negatives are searched.

The part is the first POOL sequences of each split, a uniform sample, because the corpus is shuffled. Without
record.negatives there is nothing to embed and the stage has no shards.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.schemas import CORPUS, TableSchema, column
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import resolve_model
from stages.evidence import SPLITS, RecordedUnits
from stages.record.kept_sequences import split_numbers
from stages.record.sequences import sequence_shards
from stages.settings import Record, Simulate

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

POOL = 4096
"""Sequences of each split that are embedded at most; all 12,288 of 64 tokens take one core about five minutes."""
REACH = 4 * POOL
"""The pool ends before this seq_id: the smallest splits have a quarter of the sequences."""

EMBEDDINGS = TableSchema(
    "embeddings",
    1,
    pa.schema(
        [
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column("vector", pa.list_(pa.float32()), "embedding of its text, of length 1"),
        ]
    ),
    folder="_partials/embeddings",
)

Floats = npt.NDArray[np.float32]


class Embeddings:
    """Vectors of sequences of the corpus: those of the pool as stored, others embedded when they are first asked for."""

    def __init__(self, context: Context) -> None:
        """context: of a stage that reads record.embed and corpus."""
        self._context = context
        rows = context.tables.read(EMBEDDINGS)
        vectors = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        pool = rows["seq_id"].to_numpy()
        vectors = vectors.reshape(len(pool), -1) if len(pool) else np.zeros((0, 0), np.float32)
        order, splits = np.argsort(pool), split_numbers(pool[np.argsort(pool)])
        self.pool = {split: (pool[order][splits == n], vectors[order][splits == n]) for n, split in enumerate(SPLITS)}
        """(N,) seq_ids, rising, and (N, D) vectors of each split."""
        self._known: dict[int, Floats] = {}
        for seq_ids, of_split in self.pool.values():
            self._known.update(zip(seq_ids.tolist(), of_split, strict=True))

    def of(self, seq_ids: Sequence[int]) -> Floats:
        """(N, D) vectors in the order of the seq_ids."""
        missing = sorted(set(seq_ids) - self._known.keys())
        if missing:
            texts = RecordedUnits.of(self._context).tokens(missing)
            vectors = open_embedder(self._context).encode(["".join(texts[seq_id]) for seq_id in missing])
            self._known.update(zip(missing, vectors, strict=True))
        return np.stack([self._known[seq_id] for seq_id in seq_ids])


def pool_of(start: int, stop: int) -> npt.NDArray[np.int64]:
    """The seq_ids from `start` to `stop` that are in the pool, rising."""
    seq_ids = np.arange(min(stop, REACH), dtype=np.int64)
    splits = split_numbers(seq_ids)
    chosen = [seq_ids[splits == number][:POOL] for number in range(len(SPLITS))]
    found = np.sort(np.concatenate(chosen))
    return found[found >= start]


def open_embedder(context: Context) -> "Embedder":
    """The sentence embedder of the run file, made once."""
    from pipeline.subjects.embedder import load_embedder

    return context.once("embedder", lambda config: load_embedder(config[Simulate].embedder))


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the embeddings."""
    if not config[Record].negatives:
        return {}
    return {"embedder": resolve_model(config[Simulate].embedder).revision, "pool": POOL}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_sequences sequences of the corpus, as far as the pool reaches; none without record.negatives."""
    if not config[Record].negatives:
        return []
    return sequence_shards(min(tables.count(CORPUS), REACH), config[Record].shard_sequences)


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Embed the sequences of one range that are in the pool."""
    seq_ids = pool_of(shard.key["start"], shard.key["stop"])
    rows = context.tables.read(CORPUS, ds.field("seq_id").isin(seq_ids.tolist()), ["seq_id", "tokens"]).sort_by(
        "seq_id"
    )
    vectors = open_embedder(context).encode(["".join(tokens) for tokens in rows["tokens"].to_pylist()])
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1])
    columns = {
        "seq_id": rows["seq_id"],
        "vector": pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors).ravel())),
    }
    return {EMBEDDINGS.name: pa.table(columns, schema=EMBEDDINGS.schema)}


EMBED = Stage(
    name="record.embed",
    title="embed sequences",
    reads=("corpus",),
    writes=(EMBEDDINGS,),
    settings=settings,
    plan=plan,
    process=process,
    method="simulation",
)
