"""The record.details stage: more about the exemplars of the units to be explained.

It finds which tokens matter to the activation at its peak (`record.attribution`) and between which positions an attention head
moves most (`record.pairs`). Only the `top` exemplars of the explain split are looked into, those that explainers are shown,
unless `record.details` asks for all.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context, Shard, Stage, numbered_shards
from pipeline.schemas import DETAILS, EXEMPLARS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import kind_of, modules_of
from stages.evidence import SPLITS
from stages.record.sequences import token_ids_of
from stages.settings import Explain, Record
from stages.units import unit_shards

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.subjects.activation_sources import HookPoint


def is_detailed(module: str, config: RunConfig) -> bool:
    """Whether anything is to be found out about the exemplars of a module; nothing in a null run, where it would tell the truth."""
    if config.run.null != "none":
        return False
    attributed = config[Record].attribution != "none" and kind_of(module).any_text
    return attributed or bool(kind_of(module).moves and config[Record].pairs)


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the details; nothing where none are wanted."""
    modules = [module for module in modules_of(config) if is_detailed(module, config)]
    if not modules:
        return {}
    return {
        **model_identity(config.subject),
        "modules": modules,
        "seed": config.run.seed,
        "attribution": config[Record].attribution,
        "details": config[Record].details,
        "pairs": config[Record].pairs if any(kind_of(module).moves for module in modules) else 0,
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of the units to be explained in modules that have details."""
    if not any(is_detailed(module, config) for module in modules_of(config)):
        return []
    shards = unit_shards(config, tables, config[Explain].shard_units)
    return numbered_shards(shard.key for shard in shards if is_detailed(shard.key["module"], config))


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Look into the exemplars of some units."""
    record, module = context.config[Record], shard.key["module"]
    rows = exemplars_of(context, module, shard.key["indices"], shard.key["polarity"])
    token_ids = token_ids_of(context.tables, rows["seq_id"].tolist())
    attributed = attributions(context, module, rows, token_ids) if record.attribution != "none" else {}
    moved = pairs_of(context, module, rows, token_ids) if kind_of(module).moves and record.pairs else {}
    columns = {
        "module": [module] * len(rows),
        **{name: rows[name] for name in ("index", "polarity", "seq_id")},
        "attribution": [attributed.get(row) for row in rows.index],
        "pairs": [moved.get(row) for row in rows.index],
    }
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in DETAILS.schema]  # NaN is null
    return {DETAILS.name: pa.table(arrays, schema=DETAILS.schema)}


def exemplars_of(context: Context, module: str, indices: Sequence[int], polarity: str) -> "pd.DataFrame":
    """The exemplars of some units to look into, by unit and rank; one in several bands is listed once."""
    where = context.tables.is_unit(module, indices, polarity)
    if context.config[Record].details == "shown":
        where &= (pc.field("band") == "top") & (pc.field("split") == "explain")
    names = ["index", "polarity", "rank", "seq_id", "peak", "activations"]
    rows = context.tables.read(EXEMPLARS, where, names).to_pandas().sort_values(["index", "rank"], kind="stable")
    return rows.drop_duplicates(["index", "seq_id"]).reset_index(drop=True)


def attributions(
    context: Context, module: str, rows: "pd.DataFrame", token_ids: Mapping[int, Sequence[int]]
) -> dict[int, Any]:
    """For each row how much each token matters, (T,) in the polarity."""
    from pipeline.subjects.activation_sources import open_source
    from pipeline.subjects.attribution import Wanted, integrated_gradients, neutral_token, occlusion
    from pipeline.subjects.loading.model_loading import load_tokenizer

    config, subject = context.config, context.config.subject
    neutral = neutral_token(load_tokenizer(subject.model, subject.trust_remote_code))
    found: dict[int, Any] = {}
    for seq_id, here in by_sequence(rows):
        wanted = [Wanted(int(peak), int(index)) for peak, index in zip(here["peak"], here["index"], strict=True)]
        ids = token_ids[seq_id]
        if config[Record].attribution == "occlusion":
            source = context.latest("source", module, lambda config: open_source(config, [module]))
            values = [occlusion(source, module, ids, one, neutral, config[Record].batch_size) for one in wanted]
        else:
            values = list(integrated_gradients(*model_at(context, module), ids, wanted, neutral))
        for row, polarity, mattering in zip(here.index, here["polarity"], values, strict=True):
            finite = np.where(np.isfinite(mattering), mattering, np.float32(np.nan))
            found[row] = finite if polarity == "+" else -finite
    return found


def pairs_of(
    context: Context, module: str, rows: "pd.DataFrame", token_ids: Mapping[int, Sequence[int]]
) -> dict[int, Any]:
    """For each row the largest pairs of positions; none if the model does not show them."""
    import torch

    from pipeline.subjects.activation_sources import input_device
    from pipeline.subjects.kinds.heads import head_movements, strongest_pairs

    record = context.config[Record]
    base_model, hook_point = model_at(context, module)
    found: dict[int, Any] = {}
    for seq_id, here in by_sequence(rows):
        input_ids = torch.tensor([token_ids[seq_id]], device=input_device(base_model))
        movements = head_movements(base_model, hook_point, {"input_ids": input_ids})
        if movements is None:
            break
        for row, index, activations in zip(here.index, here["index"], here["activations"], strict=True):
            counted = np.isfinite(activations)
            counted[: record.skip_positions] = False
            sizes = movements.pairs(0, index).cpu()
            pairs = strongest_pairs(sizes, torch.from_numpy(counted), record.pairs)
            found[row] = [{"from": source, "to": target, "value": value} for source, target, value in pairs]
    return found


def by_sequence(rows: "pd.DataFrame") -> "tqdm[tuple[Any, pd.DataFrame]]":
    """The rows of each sequence. Each is run in a batch of its own, so that rows do not depend on the shards."""
    return tqdm(list(rows.groupby("seq_id")), desc="sequences", unit="sequence", leave=False, disable=None)


def model_at(context: Context, module: str) -> tuple[Any, "HookPoint"]:
    """The model without its head, and the hook point of a module."""
    from pipeline.subjects.activation_sources import find_hook_points
    from pipeline.subjects.loading.model_loading import load_subject

    subject = context.config.subject
    base_model = load_subject(subject).model.base_model
    found = context.latest("hook point", module, lambda _: find_hook_points(base_model, [module], subject)[module])
    return base_model, found


def check(config: RunConfig) -> None:
    """Raises UserError where a gradient is asked for of something that has none."""
    boxes = [module for module in modules_of(config) if is_detailed(module, config) and not kind_of(module).in_layers]
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
    version=2,
    method="simulation",
)
