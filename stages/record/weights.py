"""The record.weights stage: the tokens that a unit favours and answers to, and the units that write alike, read off the weights.

Promoted and suppressed tokens are those of VocabProj (Gur-Arieh et al. 2025): what a unit writes, normed as the end of the
residual stream and unembedded. On the input side stand the tokens whose embedding is most along what the unit reads.

Shapes: U units, V tokens, D dimensions of the residual stream.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage, numbered_shards
from pipeline.schemas import UNIT_TOKENS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.settings import Record

if TYPE_CHECKING:
    import torch

    from pipeline.subjects.activation_sources import HookPoint

BLOCK = 256
"""Units whose products with all tokens are held at a time."""
NEAREST = 8
"""Units listed that write in a similar direction."""
WIDEST = 65_536
"""Units of a module up to which all pairs of directions are compared."""
LIST = UNIT_TOKENS.schema.field("promoted").type


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the listed tokens; nothing where none are to be listed."""
    modules = modules_of_the_model(config)
    if not modules or not config[Record].weight_tokens:
        return {}
    return {
        **model_identity(config.subject),
        "modules": modules,
        "sources": {name: found for name, found in source_identities(config).items() if name in modules},
        "weight_tokens": config[Record].weight_tokens,
    }


def modules_of_the_model(config: RunConfig) -> list[str]:
    """The modules of the run whose units have weights; none in a null run, where these would tell the truth."""
    return [] if config.run.null != "none" else [name for name in modules_of(config) if needs_model([name])]


def plan(config: RunConfig, tables: Tables) -> list[Shard]:  # noqa: ARG001 - the contract of a stage
    """A shard for each module of the model; none where no tokens are to be listed."""
    if not config[Record].weight_tokens:
        return []
    return numbered_shards({"module": module} for module in modules_of_the_model(config))


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """List the tokens of one module's units."""
    from pipeline.subjects.activation_sources import find_hook_points
    from pipeline.subjects.loading.model_loading import load_subject

    subject = context.config.subject
    loaded = load_subject(subject)
    (hook_point,) = find_hook_points(loaded.model.base_model, [shard.key["module"]], subject).values()
    texts = context.once("token texts", lambda _: listable(loaded.tokenizer, loaded.model))
    return {UNIT_TOKENS.name: token_rows(loaded.model, hook_point, texts, context.config[Record].weight_tokens)}


def listable(tokenizer: Any, model: Any) -> dict[int, str]:
    """The texts of those tokens of a model that stand for text, without unused rows of its embedding."""
    from pipeline.subjects.vocabulary import TokenTexts

    texts = TokenTexts(tokenizer)
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])
    return {token_id: text for token_id in range(size) if (text := texts.one(token_id))}


def token_rows(model: Any, hook_point: "HookPoint", texts: Mapping[int, str], count: int) -> pa.Table:
    """Rows of the table for the units of a hook point.

    Args:
        model: a transformers model with its head, if it has one.
        texts: of the tokens that can be listed.
        count: tokens in each list.
    """
    from pipeline.subjects.activation_sources import UnitVectors
    from pipeline.subjects.vocabulary import embedding_rows, find_unembedding

    vectors = UnitVectors(None, None) if hook_point.vectors is None else hook_point.vectors()
    columns = dict.fromkeys(("promoted", "suppressed", "input_tokens"), pa.nulls(hook_point.width, LIST))
    head = None if vectors.writes is None else find_unembedding(model, vectors.writes.shape[1])
    if head is not None and vectors.writes is not None:
        projected = head.project(vectors.writes)
        columns["promoted"], columns["suppressed"] = ends(projected, head.weight, texts, count)
    if vectors.reads is not None and vectors.reads.shape[1] == model.get_input_embeddings().weight.shape[1]:
        rows = embedding_rows(model, hook_point)
        columns["input_tokens"], _ = ends(vectors.reads.to(rows.device, rows.dtype), rows, texts, count)
    near = pa.nulls(hook_point.width, UNIT_TOKENS.schema.field("nearest").type)
    if vectors.writes is not None and 1 < hook_point.width <= WIDEST:
        near = nearest_units(vectors.writes)
    units = {"module": pa.repeat(hook_point.name, hook_point.width), "index": range(hook_point.width)}
    return pa.table({**units, **columns, "nearest": near}, schema=UNIT_TOKENS.schema)


def nearest_units(vectors: "torch.Tensor") -> pa.ChunkedArray:
    """For each of (U, D) vectors the others that are most along it, by falling cosine above 0; null where there is none."""
    import torch

    found: list[pa.Array] = []
    kind = UNIT_TOKENS.schema.field("nearest").type
    with torch.inference_mode():
        known = vectors.isfinite().all(dim=1) & vectors.any(dim=1)
        unit = torch.nn.functional.normalize(vectors.float().nan_to_num(posinf=0, neginf=0), dim=1)
        for start in range(0, len(unit), BLOCK):
            cosines = unit[start : start + BLOCK] @ unit.T  # (block, D), (D, U) -> (block, U)
            cosines[:, ~known] = -torch.inf
            own = torch.arange(len(cosines), device=cosines.device)
            cosines[own, start + own] = -torch.inf
            values, ids = (part.cpu().numpy() for part in cosines.topk(min(NEAREST, len(unit) - 1)))
            kept = known[start : start + BLOCK].cpu().numpy()[:, None] & (values > 0)
            offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
            entries = pa.StructArray.from_arrays(
                [pa.array(ids[kept].astype(np.int32)), pa.array(values[kept])], names=["index", "value"]
            )
            found.append(pa.ListArray.from_arrays(offsets, entries, mask=pa.array(~kept.any(axis=1))).cast(kind))
    return pa.chunked_array(found, kind)


def ends(
    vectors: "torch.Tensor", tokens: "torch.Tensor", texts: Mapping[int, str], count: int
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """For each unit the lists of tokens with the largest and with the smallest product; null for a vector that is zero or not finite.

    Args:
        vectors: (U, D)
        tokens: (V, D), on the same device.
        texts: of the tokens that can be listed.
        count: tokens in each list.
    """
    import torch

    left_out = torch.tensor(sorted(set(range(len(tokens))) - texts.keys()), dtype=torch.long, device=tokens.device)
    count = min(count, len(tokens) - len(left_out))
    found: dict[int, list[pa.Array]] = {1: [], -1: []}
    with torch.inference_mode(), tqdm(total=len(vectors), desc="units", unit="unit", leave=False, disable=None) as bar:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            products = (block @ tokens.T).float()  # (U, D), (D, V) -> (U, V)
            known = (products.isfinite().all(dim=1) & block.any(dim=1)).cpu().numpy()
            for sign, lists in found.items():
                values, ids = (sign * products).index_fill_(1, left_out, -torch.inf).topk(count)
                lists.append(token_lists(values.cpu().numpy(), ids.cpu().numpy(), sign, known, texts))
            bar.update(len(block))
    most, least = (pa.chunked_array(lists, LIST) for lists in found.values())
    return most, least


def token_lists(values: Any, ids: Any, sign: int, known: Any, texts: Mapping[int, str]) -> pa.Array:
    """Lists of a table, by falling product times sign, ties by rising token id.

    Args:
        values, ids: (U, count) products times sign, and tokens.
        known: (U,) whether there is a list.
    """
    offsets = np.concatenate([[0], np.cumsum(known * values.shape[1])]).astype(np.int32)
    order = np.lexsort((ids, -values), axis=1)
    values, ids = (np.take_along_axis(part, order, axis=1)[known].ravel() for part in (values, ids))
    columns = {
        "token_id": pa.array(ids.astype(np.int32)),
        "token": pa.array([texts[token] for token in ids.tolist()], pa.string()),
        "value": pa.array(sign * values),
    }
    entries = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return pa.ListArray.from_arrays(pa.array(offsets), entries, mask=pa.array(~known)).cast(LIST)


WEIGHTS = Stage(
    name="record.weights",
    title="read tokens off the weights",
    reads=(),
    writes=(UNIT_TOKENS,),
    settings=settings,
    plan=plan,
    process=process,
    method="simulation",
)
