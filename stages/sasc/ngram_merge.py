"""The ngrams.merge stage: partial responses to the mean, the spread and the strongest n-grams of every unit.

However the list was cut into shards, the rows are the same (see stages/sasc/responses.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.execution.context import Context
from pipeline.execution.stage import Shard, Stage, chunks
from pipeline.storage.tables import Tables
from stages.sasc.nulls import with_nulls
from stages.sasc.polarities import polarities_of
from stages.sasc.sasc_tables import NGRAM_LIST, NGRAM_PARTIALS, NGRAMS, RESPONSES
from stages.settings import Sasc

SHARD_UNITS = 512

Ints = npt.NDArray[np.int64]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the rows beyond the partials."""
    return {"kept": config[Sasc].kept, "polarities": config[Sasc].polarities}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most SHARD_UNITS of the scanned units of a module."""
    rows = tables.read(NGRAM_PARTIALS, columns=["module", "index"]).group_by(["module", "index"]).aggregate([])
    units: dict[str, list[int]] = {module: [] for module in with_nulls(config).subject.modules}
    for module, index in zip(rows["module"].to_pylist(), rows["index"].to_pylist(), strict=True):
        units[module].append(index)
    parts = [
        {"module": module, "first": part[0], "last": part[-1]}
        for module, indices in units.items()
        for part in chunks(sorted(indices), SHARD_UNITS)
    ]
    return [Shard(f"part-{number:05d}", part) for number, part in enumerate(parts)]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Merge the partials of a range of units of a module."""
    from pipeline.subjects.activation_sources import describe_modules
    from stages.sasc.merging import in_unit_order, merge

    module, first, last = shard.key["module"], shard.key["first"], shard.key["last"]
    modules = context.once("modules", lambda config: describe_modules(with_nulls(config)))
    polarities = polarities_of(context.config, module, modules[module].signed)
    where = (ds.field("module") == module) & (ds.field("index") >= first) & (ds.field("index") <= last)
    partials = context.tables.read(NGRAM_PARTIALS, where)
    ngrams = context.once("list", lambda _: context.tables.read(NGRAM_LIST).sort_by("ngram_id"))
    ends = [(ds.field("polarity").is_null(), polarities)]
    ends += [(ds.field("polarity") == polarity, [polarity]) for polarity in polarities]
    merged = []
    for own, explained in ends:
        parts = parts_of(partials.filter(own))
        if parts:
            merged.append(merge(parts, explained, context.config[Sasc].kept, ngrams))
    return {
        RESPONSES.name: in_unit_order([responses for responses, _ in merged], RESPONSES.schema),
        NGRAMS.name: in_unit_order([strongest for _, strongest in merged], NGRAMS.schema),
    }


def parts_of(rows: pa.Table) -> list[pa.Table]:
    """Rows of NGRAM_PARTIALS, one for each unit and part of the list, as a table by unit for each part."""
    indices = rows["index"].to_numpy()
    order = np.argsort(indices, kind="stable")
    count = len(rows) // max(1, len(np.unique(indices)))
    return [rows.take(pa.array(order[part::count])) for part in range(count)]


MERGE = Stage(
    name="ngrams.merge",
    title="merge responses",
    reads=("ngrams.scan", "ngrams.list"),
    writes=(NGRAMS, RESPONSES),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
)
