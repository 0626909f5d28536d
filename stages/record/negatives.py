"""The stages record.embed and record.negatives: hard negatives, sequences that look like a unit's exemplars and leave it low.

For every unit to be explained, in each polarity and split, half of them are `similar` and half `neighbour` (see
`likeness`); one more is similar if the number is odd. The subject is run again on TRIES times as many candidates, the
hardest first, and those are kept on which the unit stays low: below LOW times the smallest of its positive top maxima in that
polarity and split. (A quantile would be too low a bound: almost every sequence of a dense unit has a token above the 0.9
quantile of all tokens.) So there can be fewer than asked for, and a unit without a positive top maximum has none.
Negatives of a split are sequences of that split.

Without record.negatives both stages have no shards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, chunks
from pipeline.schemas import CORPUS, NEGATIVES
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import resolve_model
from stages.estimates import made_up_negatives
from stages.evidence import SPLITS
from stages.record.likeness import (
    EMBEDDINGS,
    POOL,
    Embeddings,
    Floats,
    Key,
    Neighbourhood,
    candidates,
    open_embedder,
    pool_of,
    top_exemplars,
)
from stages.record.recorded_batch import counted_positions
from stages.record.sequences import corpus_ids, sequence_shards, special_ids, token_ids_of
from stages.settings import Record, Simulate
from stages.units import unit_shards

LOW = 0.5
"""A unit stays low below this share of the smallest of its positive top maxima."""
TRIES = 4
"""Sequences tried for each that is wanted."""
BATCH = 16
"""Sequences in a forward pass, always, so that activations do not depend on what else is run."""
AT_ONCE = 256
"""Sequences whose activations are held at a time."""
KINDS = ("similar", "neighbour")
Row = dict[str, Any]
REACH = 4 * POOL
"""The pool ends before this seq_id: the smallest splits have a quarter of the sequences."""


def embed_settings(config: RunConfig) -> dict[str, Any]:
    """What can change the embeddings."""
    if not config[Record].negatives:
        return {}
    return {"embedder": resolve_model(config[Simulate].embedder).revision, "pool": POOL}


def embed_plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_sequences seq_ids of the corpus, as far as the pool reaches."""
    if not config[Record].negatives:
        return []
    seq_ids = corpus_ids(tables)
    return sequence_shards(seq_ids[seq_ids < REACH], config[Record].shard_sequences)


def embed(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Embed the sequences of one range that are in the pool."""
    seq_ids = pool_of(shard.key["start"], shard.key["stop"])
    rows = context.tables.numbered(CORPUS, seq_ids.tolist(), ["seq_id", "tokens"])
    rows = rows.sort_by("seq_id")
    vectors = open_embedder(context).encode(["".join(tokens) for tokens in rows["tokens"].to_pylist()])
    return {EMBEDDINGS.name: pa.table({"seq_id": rows["seq_id"], "vector": list(vectors)}, schema=EMBEDDINGS.schema)}


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the rows beyond the recorded evidence."""
    if not config[Record].negatives:
        return {}
    return {
        "seed": config.run.seed,
        "negatives": config[Record].negatives,
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_units units to be explained."""
    return unit_shards(config, tables, config[Record].shard_units) if config[Record].negatives else []


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Find the hard negatives of the units of one shard."""
    module, indices, config = shard.key["module"], shard.key["indices"], context.config
    embeddings = context.once("embeddings", lambda _: Embeddings(context))
    others = context.latest(
        "neighbours", module, lambda config: Neighbourhood(module, context.tables, embeddings, config.run.seed)
    )
    tops = {
        key: found
        for key, found in top_exemplars(context.tables, module, indices).items()
        if key[1] == shard.key["polarity"] and max(found[1]) > 0
    }
    embeddings.prepare(tops)
    wanted = wanted_of_kind(config[Record].negatives)
    counts = {kind: TRIES * count for kind, count in wanted.items()}
    tried = {key: candidates(key, tops, embeddings, others, counts) for key in tops}
    activations = activations_tried(module, indices, tried, context)
    limits = {key: LOW * min(value for value in values if value > 0) for key, (_, values) in tops.items()}
    kept = [one for key in tops for one in choose(key, tried[key], activations, limits[key], wanted)]
    return {NEGATIVES.name: rows_of(module, kept, config[Record].activation_bits)}


def wanted_of_kind(negatives: int) -> dict[str, int]:
    """How many of each kind are wanted."""
    return {"similar": negatives - negatives // 2, "neighbour": negatives // 2}


def activations_tried(
    module: str, indices: Sequence[int], tried: Mapping[Key, Mapping[str, Sequence[int]]], context: Context
) -> dict[tuple[int, int], Floats]:
    """(T,) activations of each unit on the sequences tried for it, by index and seq_id; NaN at positions that do not count."""
    from pipeline.subjects.activation_sources import activations_on, open_source

    source = context.latest("source", module, lambda config: open_source(config, [module]))
    special = context.once("special_ids", special_ids)
    units: dict[int, set[int]] = {}
    for (index, *_), kinds in tried.items():
        for seq_id in (seq_id for kind in kinds.values() for seq_id in kind):
            units.setdefault(seq_id, set()).add(index)
    token_ids = token_ids_of(context.tables, units)
    by_length = sorted(token_ids.items(), key=lambda pair: (len(pair[1]), pair[0]))
    found = {}
    for part in chunks(by_length, AT_ONCE):
        for seq_id, values in activations_on(source, module, indices, part, BATCH).items():
            ids = np.asarray([token_ids[seq_id]], np.int64)
            [counted] = counted_positions(ids, np.asarray([ids.size]), context.config[Record], special)
            for index in units[seq_id]:
                own = values[:, indices.index(index)]
                found[index, seq_id] = np.where(counted & np.isfinite(own), own, np.float32(np.nan))
    return found


def choose(
    key: Key,
    tried: Mapping[str, Sequence[int]],
    activations: Mapping[tuple[int, int], Floats],
    limit: float,
    wanted: Mapping[str, int],
) -> list[Row]:
    """The first sequences of each kind that stay below the limit; none is of both kinds.

    Args:
        activations: (T,) by index and seq_id, NaN at positions that do not count.

    Returns:
        Rows of NEGATIVES but for their module and maximum, with activations as they were given.
    """
    index, polarity, split = key
    kept: dict[int, Row] = {}
    for kind in KINDS:
        rank = 0
        for seq_id in tried[kind]:
            values = activations[index, seq_id]
            directed = values if polarity == "+" else -values
            low = np.isfinite(values).any() and np.nanmax(directed) < limit
            if rank < wanted[kind] and seq_id not in kept and low:
                place = {"index": index, "polarity": polarity, "band": kind, "split": split, "rank": rank}
                peak = int(np.nanargmax(directed))
                kept[seq_id] = place | {"seq_id": seq_id, "peak": peak, "activations": values}
                rank += 1
    return list(kept.values())


def rows_of(module: str, kept: Sequence[Row], bits: int) -> pa.Table:
    """Rows of NEGATIVES by unit, polarity, kind, split and rank; positions that do not count are null.

    Args:
        bits: significant bits of their activations.
    """
    from stages.record.exemplars import activation_lists, stacked

    ranks = {name: rank for order in (KINDS, SPLITS) for rank, name in enumerate(order)}
    rows = sorted(
        kept, key=lambda row: (row["index"], row["polarity"], ranks[row["band"]], ranks[row["split"]], row["rank"])
    )
    if not rows:
        return NEGATIVES.schema.empty_table()
    lengths = np.asarray([len(row["activations"]) for row in rows], np.int64)
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {
        "module": [module] * len(rows),
        "max_activation": [float(row["activations"][row["peak"]]) for row in rows],
        "activations": activation_lists(stacked([row["activations"][None] for row in rows]), lengths, bits),
    }
    return pa.table(columns, schema=NEGATIVES.schema)


EMBED = Stage(
    name="record.embed",
    title="embed sequences",
    reads=("corpus",),
    writes=(EMBEDDINGS,),
    settings=embed_settings,
    plan=embed_plan,
    process=embed,
    method="simulation",
)
NEGATIVE = Stage(
    name="record.negatives",
    title="look for hard negatives",
    reads=("record.embed", "record.merge", "corpus"),
    writes=(NEGATIVES,),
    settings=settings,
    plan=plan,
    process=process,
    splits=SPLITS,
    estimate=EstimateHints(made_up_tables=made_up_negatives),
    method="simulation",
)
