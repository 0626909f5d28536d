"""The record.details stage: what else is known of the exemplars of the units that are to be explained.

Which tokens of the text matter to the activation at its peak (`record.attribution`), and, of attention heads, between which
positions they move most (`record.pairs`). Only the `top` exemplars of the explain split are looked at, which explainers are shown,
unless `record.details` asks for all. Explainers look details up by the exemplars that they are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.schemas import DETAILS, EXEMPLARS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.module_kinds import kind_of, modules_of
from stages.evidence import SPLITS
from stages.record.sequences import token_ids_of
from stages.settings import Explain, Record
from stages.units import unit_shards

if TYPE_CHECKING:
    from pipeline.subjects.hook_points import HookPoint

Pairs = list[tuple[int, int, float]]


@dataclass
class Detailed:
    """An exemplar and what has been found out about it."""

    index: int
    polarity: str
    seq_id: int
    peak: int
    counted: npt.NDArray[np.bool_]
    """(T,) which positions count."""
    attribution: npt.NDArray[np.float32] | None = None
    """(T,) in the polarity."""
    pairs: Pairs | None = None


def is_heads(module: str) -> bool:
    """Whether the units of a module are attention heads."""
    return kind_of(module).moves


def is_detailed(module: str, config: RunConfig) -> bool:
    """Whether anything is to be found out about the exemplars of a module."""
    attributed = config[Record].attribution != "none" and kind_of(module).any_text
    return attributed or bool(is_heads(module) and config[Record].pairs)


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the details; nothing where none are wanted."""
    modules = [module for module in modules_of(config) if is_detailed(module, config)]
    if not modules:
        return {}
    subject, explain = config.subject, config[Explain]
    return {
        "model": subject.model,
        "revision": resolve_model(subject.model).revision,
        "dtype": subject.dtype,
        "modules": modules,
        "seed": config.run.seed,
        "explain": explain.model_dump(include={"units", "polarities"}),
        "attribution": config[Record].attribution,
        "details": config[Record].details,
        "pairs": config[Record].pairs if any(is_heads(module) for module in modules) else 0,
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of the units to be explained in modules that have details."""
    if not any(is_detailed(module, config) for module in modules_of(config)):
        return []
    parts = [shard.key for shard in unit_shards(config, tables, config[Explain].shard_units)]
    wanted = [part for part in parts if is_detailed(part["module"], config)]
    return [Shard(f"part-{number:05d}", part) for number, part in enumerate(wanted)]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Look into the exemplars of some units."""
    config, module = context.config, shard.key["module"]
    exemplars = exemplars_of(context, module, shard.key["indices"], shard.key["polarity"])
    token_ids = token_ids_of(context.tables, {exemplar.seq_id for exemplar in exemplars})
    if config[Record].attribution != "none":
        attribute(context, module, exemplars, token_ids)
    if is_heads(module) and config[Record].pairs:
        add_pairs(context, module, exemplars, token_ids)
    rows = [_row(module, exemplar) for exemplar in exemplars]
    return {DETAILS.name: pa.Table.from_pylist(rows, schema=DETAILS.schema)}


def exemplars_of(context: Context, module: str, indices: Sequence[int], polarity: str) -> list[Detailed]:
    """The exemplars of some units that are looked into, by unit and rank; one that is in several bands once."""
    field, record = ds.field, context.config[Record]
    where = context.tables.is_unit(module, indices, polarity)
    if record.details == "shown":
        where &= (field("band") == "top") & (field("split") == "explain")
    rows = context.tables.read(EXEMPLARS, where).sort_by([("index", "ascending"), ("rank", "ascending")])
    found: dict[tuple[int, int], Detailed] = {}
    for row in rows.to_pylist():
        counted = np.isfinite(np.array(row["activations"], np.float32))
        counted[: record.skip_positions] = False
        exemplar = Detailed(row["index"], row["polarity"], row["seq_id"], row["peak"], counted)
        found.setdefault((row["index"], row["seq_id"]), exemplar)
    return list(found.values())


def attribute(
    context: Context, module: str, exemplars: Sequence[Detailed], token_ids: Mapping[int, Sequence[int]]
) -> None:
    """Set `attribution`."""
    from pipeline.subjects.activation_sources import open_source
    from pipeline.subjects.attribution import Wanted, integrated_gradients, neutral_token, occlusion
    from pipeline.subjects.loading.model_loading import load_tokenizer

    config, subject = context.config, context.config.subject
    neutral = neutral_token(load_tokenizer(subject.model, subject.trust_remote_code))
    for seq_id, here in _by_sequence(exemplars):
        wanted = [Wanted(exemplar.peak, exemplar.index) for exemplar in here]
        ids = token_ids[seq_id]
        if config[Record].attribution == "occlusion":
            source = context.latest("source", module, lambda config: open_source(config, [module]))
            found = [occlusion(source, module, ids, one, neutral, config[Record].batch_size) for one in wanted]
        else:
            base_model, site = _site(context, module)
            found = list(integrated_gradients(base_model, site, ids, wanted, neutral))
        for exemplar, values in zip(here, found, strict=True):
            exemplar.attribution = values if exemplar.polarity == "+" else -values


def add_pairs(
    context: Context, module: str, exemplars: Sequence[Detailed], token_ids: Mapping[int, Sequence[int]]
) -> None:
    """Set `pairs`, where the model lets them be had."""
    import torch

    from pipeline.subjects.hook_points import input_device
    from pipeline.subjects.kinds.heads import head_movements, strongest_pairs

    record = context.config[Record]
    base_model, site = _site(context, module)
    device = input_device(base_model)
    for seq_id, here in _by_sequence(exemplars):
        found = head_movements(base_model, site, {"input_ids": torch.tensor([token_ids[seq_id]], device=device)})
        if found is None:
            return
        for exemplar in here:
            sizes = found.pairs(0, exemplar.index).cpu()
            exemplar.pairs = strongest_pairs(sizes, torch.from_numpy(exemplar.counted), record.pairs)


def _by_sequence(exemplars: Sequence[Detailed]) -> "tqdm[tuple[int, list[Detailed]]]":
    """The exemplars of each sequence. No two sequences are run in one batch, so that the rows do not depend on the shards."""
    ordered = sorted(exemplars, key=lambda exemplar: exemplar.seq_id)
    groups = [(seq_id, list(group)) for seq_id, group in groupby(ordered, lambda exemplar: exemplar.seq_id)]
    return tqdm(groups, desc="sequences", unit="sequence", leave=False, disable=None)


def _site(context: Context, module: str) -> tuple[Any, "HookPoint"]:
    """The model without its head, and a place in it."""
    from pipeline.subjects.hook_points import find_hook_points
    from pipeline.subjects.loading.model_loading import load_subject

    subject = context.config.subject
    base_model = load_subject(subject).model.base_model
    return base_model, context.latest("site", module, lambda _: find_hook_points(base_model, [module], subject)[module])


def _row(module: str, exemplar: Detailed) -> dict[str, Any]:
    values, pairs = exemplar.attribution, exemplar.pairs
    return {
        "module": module,
        "index": exemplar.index,
        "polarity": exemplar.polarity,
        "seq_id": exemplar.seq_id,
        "attribution": None if values is None else [float(v) if np.isfinite(v) else None for v in values],
        "pairs": None if pairs is None else [{"from": a, "to": b, "value": value} for a, b, value in pairs],
    }


def check(config: RunConfig) -> None:
    """Raises UserError where a gradient is asked for of something that has none."""
    boxes = [module for module in modules_of(config) if is_detailed(module, config) and not kind_of(module).gradients]
    if config[Record].attribution == "integrated_gradients" and boxes:
        raise UserError(
            f'record.attribution = "integrated_gradients", but {", ".join(boxes)} is a function without gradients; '
            'write "occlusion"'
        )


DETAIL = Stage(
    name="record.details",
    title="look into exemplars",
    reads=("corpus", "record.merge"),
    writes=(DETAILS,),
    settings=settings,
    plan=plan,
    process=process,
    splits=SPLITS,
    check=check,
    method="simulation",
)
