"""The ngrams.scan stage: the responses of every module to the n-grams of the list.

A module that fails has rows that say so and does not stop the others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.stage import Shard, Stage
from pipeline.subjects.identity import BLACK_BOX, OWN, needs_model, source_identities
from pipeline.subjects.spec import resolve_model
from pipeline.tables import Tables
from stages.sasc.nulls import NAME, with_nulls
from stages.sasc.tables import NGRAM_LIST, NGRAM_PARTIALS

if TYPE_CHECKING:
    from stages.sasc.scanning import Ngrams

SCANNED = {"pool", "reading", "units", "polarities", "kept"}
"""Settings that change what is scanned, beyond the list."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    config = with_nulls(config)
    subject, sasc = config.subject, config.sasc
    found: dict[str, Any] = {
        "modules": subject.modules,
        "sources": source_identities(config),
        "sasc": sasc.model_dump(include=SCANNED),
    }
    if needs_model(subject.modules):
        found |= {"model": subject.model, "revision": resolve_model(subject.model).revision}
        found |= {"dtype": subject.dtype, "paths": subject.paths}
        if sasc.reading == "in_context":
            found |= {"record": config.record.model_dump(include={"batch_size", "skip_positions"})}
    if isinstance(sasc.units, int):
        found["seed"] = config.run.seed
    return found


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_ngrams n-grams; one of all where they are found in sequences, which are gone through once."""
    total, size = tables.count(NGRAM_LIST), config.sasc.shard_ngrams
    if config.sasc.reading != "alone" and needs_model(config.subject.modules):
        size = max(total, 1)
    starts = range(0, total, size)
    return [
        Shard(f"part-{number:05d}", {"start": start, "stop": min(start + size, total)})
        for number, start in enumerate(starts)
    ]


def also_reads(config: RunConfig) -> tuple[str, ...]:
    """The recording, where n-grams are read in it."""
    return ("record.merge",) if config.sasc.reading == "recorded" else ()


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Ask every module about a range of the list."""
    from pipeline.subjects.source import describe_modules
    from stages.sasc.scanning import scan_black_box, scan_model
    from stages.sasc.units import chosen_units

    config = with_nulls(context.config)
    chosen = context.once("units", lambda _: chosen_units(config, describe_modules(config)))
    ngrams = _ngrams(context, shard.key["start"], shard.key["stop"])
    rows = scan_model(context, ngrams, {module: chosen[module] for module in chosen if needs_model([module])})
    for module in chosen:
        if module.startswith(BLACK_BOX):
            rows[module] = scan_black_box(context, ngrams, module, chosen[module])
    found = [rows[module] for module in config.subject.modules if module in rows]
    return {NGRAM_PARTIALS.name: pa.concat_tables([NGRAM_PARTIALS.schema.empty_table(), *found])}


def _ngrams(context: Context, start: int, stop: int) -> "Ngrams":
    from stages.sasc.scanning import Ngrams

    where = (ds.field("ngram_id") >= start) & (ds.field("ngram_id") < stop)
    rows = context.tables.read(NGRAM_LIST, where, ["ngram_id", "text"]).sort_by("ngram_id")
    return Ngrams(rows["ngram_id"].to_numpy(), rows["text"].to_pylist())


def check(config: RunConfig) -> None:
    """Raises UserError where a module, a unit, a device or a function is not there; what functions answer is not looked at."""
    from pipeline.subjects.callables import load_function
    from pipeline.subjects.identity import black_box
    from pipeline.subjects.load import resolve_device
    from pipeline.subjects.source import describe_modules
    from stages.sasc.units import chosen_units

    if NAME in config.subject.black_boxes:
        raise UserError(f"subject.black_boxes.{NAME}: the null units of sasc have this name; give another one")
    config = with_nulls(config)
    for module in config.subject.modules:
        if module.startswith(OWN):
            raise UserError(
                f"{module} holds activations on its own sequences and cannot be asked about other texts, as sasc does; "
                'leave it out of subject.modules, or "sasc" out of run.methods'
            )
        if module.startswith(BLACK_BOX):
            load_function(module, black_box(config, module).call)
    resolve_device(config.sasc.device)
    if needs_model(config.subject.modules):
        resolve_device(config.subject.device)
    chosen_units(config, describe_modules(config))


SCAN = Stage(
    name="ngrams.scan",
    title="evaluate n-grams",
    reads=("ngrams.list", "corpus"),
    writes=(NGRAM_PARTIALS,),
    settings=settings,
    plan=plan,
    process=process,
    also_reads=also_reads,
    splits=("explain",),
    check=check,
    method="sasc",
)
