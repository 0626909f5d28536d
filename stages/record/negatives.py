"""The record.negatives stage: hard negatives, sequences that look like a unit's exemplars and leave it low.

For every unit to be explained, in each polarity and split, half of them are `similar` and half `neighbour` (see
`likeness`); one more is similar if the number is odd. The subject is run again on TRIES times as many candidates, the
hardest first, and those are kept on which the unit stays low: below LOW times the smallest of its positive top maxima in that
polarity and split. (A quantile would be too low a bound: almost every sequence of a dense unit has a token above the 0.9
quantile of all tokens.) So there can be fewer than asked for, and a unit without a positive top maximum has none.
Negatives of a split are sequences of that split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, chunks
from pipeline.schemas import NEGATIVES
from pipeline.storage.tables import Tables
from stages.estimates import made_up_negatives
from stages.evidence import SPLITS
from stages.record.embeddings import Embeddings
from stages.record.likeness import Neighbourhood, Tops, candidates, top_exemplars
from stages.record.recorded_batch import counted_positions
from stages.record.sequences import special_ids, token_ids_of
from stages.settings import Explain, Record
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

Key = tuple[int, str, str]
"""Index, polarity, split."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Negative:
    """A sequence on which a unit stays low."""

    index: int
    polarity: str
    band: str
    """One of KINDS."""
    split: str
    rank: int
    seq_id: int
    peak: int
    """Position of the largest activation in the polarity."""
    activations: Floats
    """(T,) raw, NaN at positions that do not count."""

    @property
    def place(self) -> tuple[Any, ...]:
        """The order of the rows."""
        return self.index, self.polarity, KINDS.index(self.band), SPLITS.index(self.split), self.rank


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the rows beyond the recorded evidence."""
    if not config[Record].negatives:
        return {}
    return {
        "seed": config.run.seed,
        "negatives": config[Record].negatives,
        "units": config[Explain].model_dump()["units"],
        "polarities": sorted(config[Explain].polarities),
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_units units to be explained; none without record.negatives."""
    return unit_shards(config, tables, config[Record].shard_units) if config[Record].negatives else []


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Find the hard negatives of the units of one shard."""
    module, indices = shard.key["module"], shard.key["indices"]
    config = context.config
    embeddings = context.once("embeddings", lambda _: Embeddings(context))
    others = context.latest("neighbours", module, lambda _: Neighbourhood(module, context.tables, embeddings, config))
    tops = {
        key: found
        for key, found in top_exemplars(context.tables, module, indices).items()
        if key[1] == shard.key["polarity"] and max(found[1]) > 0
    }
    embeddings.of(sorted({seq_id for seq_ids, _ in tops.values() for seq_id in seq_ids}))  # all at once
    wanted = wanted_of_kind(config[Record].negatives)
    counts = {kind: TRIES * count for kind, count in wanted.items()}
    tried = {key: candidates(key, tops, embeddings, others, counts) for key in tops}
    activations = _activations(module, indices, tried, context)
    kept = [one for key in tops for one in choose(key, tried[key], activations, lowest(tops, key), wanted)]
    return {NEGATIVES.name: rows_of(module, kept, context.config[Record].activation_bits)}


def wanted_of_kind(negatives: int) -> dict[str, int]:
    """How many of each kind are wanted."""
    return {"similar": negatives - negatives // 2, "neighbour": negatives // 2}


def lowest(tops: Tops, key: Key) -> float:
    """The activation below which a unit stays low."""
    return LOW * min(value for value in tops[key][1] if value > 0)


def choose(
    key: Key,
    tried: Mapping[str, Sequence[int]],
    activations: Mapping[tuple[int, int], Floats],
    limit: float,
    wanted: Mapping[str, int],
) -> list[Negative]:
    """The first sequences of each kind that stay below the limit; none is of both kinds.

    Args:
        activations: (T,) by index and seq_id, NaN at positions that do not count.
    """
    index, polarity, split = key
    kept: list[Negative] = []
    for kind in KINDS:
        rank = 0
        for seq_id in tried[kind]:
            if rank == wanted[kind]:
                break
            values = activations[index, seq_id]
            directed = values if polarity == "+" else -values
            taken = any(one.seq_id == seq_id for one in kept)
            if not taken and np.isfinite(values).any() and np.nanmax(directed) < limit:
                kept.append(Negative(index, polarity, kind, split, rank, seq_id, int(np.nanargmax(directed)), values))
                rank += 1
    return kept


def _activations(
    module: str, indices: Sequence[int], tried: Mapping[Key, Mapping[str, Sequence[int]]], context: Context
) -> dict[tuple[int, int], Floats]:
    """The activations of each unit on the sequences tried for it, by index and seq_id."""
    from pipeline.subjects.activation_sources import activations_on, open_source

    source = context.latest("source", module, lambda config: open_source(config, [module]))
    units: dict[int, set[int]] = {}
    for (index, *_), kinds in tried.items():
        for seq_id in (seq_id for kind in kinds.values() for seq_id in kind):
            units.setdefault(seq_id, set()).add(index)
    place = {index: number for number, index in enumerate(indices)}
    found = {}
    for part in _sequences(context.tables, sorted(units)):
        ids = dict(part)
        for seq_id, values in activations_on(source, module, indices, part, BATCH).items():
            counted = _counted(ids[seq_id], context)
            for index in units[seq_id]:
                own = values[:, place[index]].copy()
                own[~(counted & np.isfinite(own))] = np.nan
                found[index, seq_id] = own
    return found


def _sequences(tables: Tables, seq_ids: Sequence[int]) -> Iterator[list[tuple[int, list[int]]]]:
    """seq_id and token ids of some sequences, AT_ONCE at a time, those of one length together."""
    pairs = token_ids_of(tables, seq_ids).items()
    yield from chunks(sorted(pairs, key=lambda pair: (len(pair[1]), pair[0])), AT_ONCE)


def _counted(token_ids: Sequence[int], context: Context) -> npt.NDArray[np.bool_]:
    """(T,) whether a position counts."""
    special = context.once("special_ids", special_ids)
    lengths = np.array([len(token_ids)], np.int64)
    return counted_positions(np.array([token_ids], np.int64), lengths, context.config[Record], special)[0]


def rows_of(module: str, kept: Sequence[Negative], bits: int) -> pa.Table:
    """Rows of NEGATIVES by unit, polarity, kind, split and rank; positions that do not count are null.

    Args:
        bits: significant bits of their activations.
    """
    from stages.record.exemplars import activation_lists, stacked

    negatives = sorted(kept, key=lambda one: one.place)
    lengths = np.asarray([len(one.activations) for one in negatives], np.int64)
    names = ("index", "polarity", "band", "split", "rank", "seq_id", "peak")
    columns = {name: [getattr(one, name) for one in negatives] for name in names} | {
        "module": pa.array([module] * len(negatives), pa.string()),
        "max_activation": [float(one.activations[one.peak]) for one in negatives],
        "activations": activation_lists(stacked([one.activations[None] for one in negatives]), lengths, bits),
    }
    return pa.table({name: columns[name] for name in NEGATIVES.schema.names}, schema=NEGATIVES.schema)


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
