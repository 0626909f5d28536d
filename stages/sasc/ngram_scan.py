"""The ngrams.scan stage: the responses of every module to the n-grams of the list.

A module that fails has rows that say so and does not stop the others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.context import Context
from pipeline.execution.stage import Shard, Stage, chunks
from pipeline.storage.tables import Tables
from pipeline.subjects.identity import BLACK_BOX, PRECOMPUTED, needs_model, source_identities
from pipeline.subjects.loading.model_source import resolve_model
from stages.sasc.nulls import NAME, with_nulls
from stages.sasc.sasc_tables import NGRAM_LIST, NGRAM_PARTIALS
from stages.sasc.sasc_units import asked_modules, chosen_units, units_of
from stages.settings import Record, Sasc
from stages.units import module_widths

if TYPE_CHECKING:
    from stages.sasc.scanning import Ngrams

SCANNED = {"pool", "reading", "units", "polarities", "kept"}
"""Settings that change what is scanned, beyond the list."""
SHARD_UNITS = 512
"""Units of a shard whose responses are read in the recording."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    config = with_nulls(config)
    subject, sasc = config.subject, config[Sasc]
    found: dict[str, Any] = {
        "modules": subject.modules,
        "sources": source_identities(config),
        "sasc": sasc.model_dump(include=SCANNED),
    }
    if needs_model(subject.modules):
        found |= {"model": subject.model, "revision": resolve_model(subject.model).revision}
        found |= {"dtype": subject.dtype, "paths": subject.paths}
        if sasc.reading == "in_context":
            found |= {"record": config[Record].model_dump(include={"batch_size", "skip_positions"})}
    if isinstance(sasc.units, int):
        found["seed"] = config.run.seed
    return found


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_ngrams n-grams for the modules that are asked about n-grams as texts.

    Where units of the model are read in sequences, these are gone through for all n-grams at once: in context there is a shard
    for each module, as its sums fill the memory; in the recording for SHARD_UNITS units.
    """
    config = with_nulls(config)
    total, size, reading = tables.count(NGRAM_LIST), config[Sasc].shard_ngrams, config[Sasc].reading
    modules = asked_modules(config)
    read = [module for module in modules if reading != "alone" and needs_model([module])]
    asked = [module for module in modules if module not in read]
    keys: list[dict[str, Any]] = []
    for module in read:
        key = {"modules": [module], "start": 0, "stop": total}
        keys += [key | part for part in (_unit_ranges(config, tables, module) if reading == "recorded" else [{}])]
    for start in range(0, total if asked else 0, size):
        keys.append({"modules": asked, "start": start, "stop": min(start + size, total)})
    return [Shard(f"part-{number:05d}", key) for number, key in enumerate(keys)]


def _unit_ranges(config: RunConfig, tables: Tables, module: str) -> list[dict[str, int]]:
    """The first and the last of each SHARD_UNITS units of a recorded module that are explained."""
    units = units_of(config, module, module_widths(tables)[module])
    return [{"first": part[0], "last": part[-1]} for part in chunks(units, SHARD_UNITS)]


def reads(config: RunConfig) -> tuple[str, ...]:
    """The list and the corpus, and the recording where n-grams are read in it."""
    return ("ngrams.list", "corpus", *(("record.merge",) if config[Sasc].reading == "recorded" else ()))


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Ask some modules about a range of the list."""
    from pipeline.subjects.activation_sources import describe_modules
    from stages.sasc.scanning import scan_black_box, scan_model

    config, key = with_nulls(context.config), shard.key
    every = context.once("units", lambda _: chosen_units(config, describe_modules(config)))
    chosen = {module: every[module] for module in key["modules"]}
    if "first" in key:
        chosen = {
            module: [unit for unit in units if key["first"] <= unit <= key["last"]] for module, units in chosen.items()
        }
    ngrams = _ngrams(context, key["start"], key["stop"])
    rows = scan_model(context, ngrams, {module: chosen[module] for module in chosen if needs_model([module])})
    for module in chosen:
        if module.startswith(BLACK_BOX):
            rows[module] = scan_black_box(context, ngrams, module, chosen[module])
    return {NGRAM_PARTIALS.name: pa.concat_tables([rows[module] for module in chosen])}


def _ngrams(context: Context, start: int, stop: int) -> "Ngrams":
    from stages.sasc.scanning import Ngrams

    def read(_: RunConfig) -> Ngrams:
        where = (ds.field("ngram_id") >= start) & (ds.field("ngram_id") < stop)
        rows = context.tables.read(NGRAM_LIST, where, ["ngram_id", "text"]).sort_by("ngram_id")
        return Ngrams(rows["ngram_id"].to_numpy(), rows["text"].to_pylist())

    return context.latest("n-grams", f"{start}-{stop}", read)


def check(config: RunConfig) -> None:
    """Raises UserError where a module, a unit, a device or a function is not there; what functions answer is not looked at."""
    from pipeline.subjects.activation_sources import describe_modules
    from pipeline.subjects.identity import black_box
    from pipeline.subjects.kinds.callables import load_function
    from pipeline.subjects.loading.model_loading import resolve_device

    if NAME in config.subject.black_boxes:
        raise UserError(f"subject.black_boxes.{NAME}: the null units of sasc have this name; give another one")
    config = with_nulls(config)
    for module in config.subject.modules:
        if module.startswith(PRECOMPUTED):
            raise UserError(
                f"{module} holds activations on its own sequences and cannot be asked about other texts, as sasc does; "
                'leave it out of subject.modules, or "sasc" out of run.methods'
            )
        if module.startswith(BLACK_BOX):
            load_function(module, black_box(config, module).call)
    resolve_device(config[Sasc].device)
    if needs_model(config.subject.modules):
        resolve_device(config.subject.device)
    chosen_units(config, describe_modules(config))


SCAN = Stage(
    name="ngrams.scan",
    title="evaluate n-grams",
    reads=reads,
    writes=(NGRAM_PARTIALS,),
    settings=settings,
    plan=plan,
    process=process,
    splits=("explain",),
    check=check,
    method="sasc",
    version=2,
)
