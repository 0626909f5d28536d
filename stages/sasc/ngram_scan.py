"""The ngrams.scan stage: the responses of every module to the n-grams of the list.

Black boxes are asked about n-grams as texts, whatever sasc.reading is. A module that fails has rows that say so and does not
stop the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.errors import UserError
from pipeline.execution.stage import Context, Shard, Stage, numbered_shards
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.sasc import READINGS, Sasc
from stages.sasc.sasc_tables import NGRAM_LIST, NGRAM_PARTIALS
from stages.sasc.sasc_units import NULL_BOX, asked_modules, chosen_units, with_nulls
from stages.settings import Record

if TYPE_CHECKING:
    from pipeline.subjects.text_functions import TextFunction
    from stages.sasc.responses import ModuleResponses

SCANNED = {"pool", "reading", "units", "polarities", "kept"}
"""Settings that change what is scanned, beyond the list."""
BLOCK_BYTES = 1 << 26
"""Memory for answers of a black box at a time."""
BLOCK = 1024
"""N-grams that a black box is asked about at a time, at least."""
Chosen = Mapping[str, Sequence[int]]
"""Indices of the units to explain, by module."""


@dataclass(frozen=True)
class Ngrams:
    """Some n-grams of the list."""

    ids: npt.NDArray[np.int64]
    texts: list[str]


@dataclass(frozen=True)
class Reading:
    """How units of the model respond to n-grams."""

    summary: str
    """One line for people."""
    scan: Callable[[Context, Ngrams, Chosen], dict[str, pa.Table]]
    """Rows of NGRAM_PARTIALS by module."""
    parts: Callable[[RunConfig, Tables, str], Iterable[dict[str, Any]]] | None = None
    """What the shards of a module cover, each with the whole list. None for shards of sasc.shard_ngrams n-grams of all modules."""
    reads: tuple[str, ...] = ()
    """Stages that it reads, beside the list and the corpus."""
    record: frozenset[str] = frozenset()
    """Settings of the section Record that change what it reads."""
    check: Callable[[RunConfig], None] = lambda _: None
    """Raises ValueError where the run file does not record what it reads."""
    sizes: Callable[[RunConfig, int], dict[str, str]] = lambda *_: {}
    """For estimates: what the model is asked for, in words, given how many of its modules are read."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    config = with_nulls(config)
    subject, sasc = config.subject, config[Sasc]
    found: dict[str, Any] = {
        "modules": modules_of(config),
        "sources": source_identities(config),
        "sasc": sasc.model_dump(include=SCANNED),
    }
    if needs_model(modules_of(config)):
        found |= model_identity(subject)
        if included := _reading(config).record:
            found["record"] = config[Record].model_dump(include=set(included))
    if isinstance(sasc.units, int):
        found["seed"] = config.run.seed
    return found


def _reading(config: RunConfig) -> Reading:
    found: Reading = choice(READINGS, config[Sasc].reading)
    return found


def reads(config: RunConfig) -> tuple[str, ...]:
    """The list and the corpus, and what the reading of the run file reads beside them."""
    return ("ngrams.list", "corpus", *_reading(config).reads)


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_ngrams n-grams for the modules that are asked about n-grams as texts, and for others as their reading says."""
    config = with_nulls(config)
    total, size, parts = tables.count(NGRAM_LIST), config[Sasc].shard_ngrams, _reading(config).parts
    asked: list[str] = []
    keys: list[dict[str, Any]] = []
    for module in asked_modules(config):
        if parts is None or not needs_model([module]):
            asked.append(module)
        else:
            keys += [{"modules": [module], "start": 0, "stop": total} | part for part in parts(config, tables, module)]
    for start in range(0, total if asked else 0, size):
        keys.append({"modules": asked, "start": start, "stop": min(start + size, total)})
    return numbered_shards(keys)


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Ask some modules about a range of the list."""
    from pipeline.subjects.activation_sources import describe_modules

    config, key = with_nulls(context.config), shard.key
    every = context.once("units", lambda _: chosen_units(config, describe_modules(config)))
    chosen = {module: every[module] for module in key["modules"]}
    if "first" in key:
        inside = range(key["first"], key["last"] + 1)
        chosen = {module: [unit for unit in units if unit in inside] for module, units in chosen.items()}
    ngrams = _ngrams(context, key["start"], key["stop"])
    in_model = {module: units for module, units in chosen.items() if needs_model([module])}
    rows = _reading(config).scan(context, ngrams, in_model) if in_model else {}
    for module in chosen:
        if module not in in_model:
            rows[module] = _scan_black_box(context, ngrams, module, chosen[module])
    return {NGRAM_PARTIALS.name: pa.concat_tables([rows[module] for module in chosen])}


def _ngrams(context: Context, start: int, stop: int) -> Ngrams:
    def read(_: RunConfig) -> Ngrams:
        where = (pc.field("ngram_id") >= start) & (pc.field("ngram_id") < stop)
        rows = context.tables.read(NGRAM_LIST, where, ["ngram_id", "text"]).sort_by("ngram_id")
        return Ngrams(rows["ngram_id"].to_numpy(), rows["text"].to_pylist())

    return context.latest("n-grams", f"{start}-{stop}", read)


def _scan_black_box(context: Context, ngrams: Ngrams, module: str, units: list[int]) -> pa.Table:
    """Rows of a black box; where it fails, each says why, and it is not asked again by this process."""
    from pipeline.subjects.text_functions import open_text_function
    from stages.sasc.responses import ModuleResponses

    sasc = context.config[Sasc]
    failures: dict[str, str] = context.once("failures", lambda _: {})
    if module not in failures:
        try:
            function = context.once(module, lambda config: open_text_function(with_nulls(config), module, sasc.pool))
            return _ask(function, ngrams, ModuleResponses.for_run(sasc, module, units))
        except UserError as error:
            failures[module] = str(error)
    return ModuleResponses.for_run(sasc, module, units).rows(failures[module])


def _ask(function: "TextFunction", ngrams: Ngrams, responses: "ModuleResponses") -> pa.Table:
    """Rows of a black box that is asked about n-grams, shorter ones first, in as many calls as memory allows."""
    import torch

    order = np.argsort([len(text) for text in ngrams.texts], kind="stable")
    size = max(BLOCK, BLOCK_BYTES // (8 * function.units))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        values = function.values([ngrams.texts[number] for number in part.tolist()])
        responses.add(ngrams.ids[part], torch.from_numpy(values[:, responses.indices]))
    return responses.rows()


def check(config: RunConfig) -> None:
    """Raises UserError where a module, a unit, a device or a function is not there; what functions answer is not looked at."""
    from pipeline.subjects.activation_sources import describe_modules
    from pipeline.subjects.loading.model_loading import resolve_device
    from pipeline.subjects.text_functions import check_text_functions

    if NULL_BOX in config.subject.black_boxes:
        raise UserError(f"subject.black_boxes.{NULL_BOX}: the null units of sasc have this name; give another one")
    config = with_nulls(config)
    check_text_functions(config)
    resolve_device(config[Sasc].device)
    if needs_model(modules_of(config)):
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
    version=3,
)
