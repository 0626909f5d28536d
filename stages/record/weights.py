"""The record.weights stage: the tokens that a unit favours and answers to, read off the weights without any text.

Promoted and suppressed tokens are those of VocabProj (Gur-Arieh et al. 2025): what a unit writes, normed as the end of the
residual stream and unembedded. On the input side stand the tokens whose embedding is most along what the unit reads.

Shapes: U units, V tokens, D dimensions of the residual stream.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.schemas import UNIT_TOKENS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.settings import Record

if TYPE_CHECKING:
    import torch

    from pipeline.subjects.hook_points import HookPoint

BLOCK = 256
"""Units whose products with all tokens are held at a time."""

Listed = list[tuple[int, float]]
"""Token ids with their values, in the order of the list."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that can be listed."""

    texts: Mapping[int, str]
    """Text of each token id; those that stand for no text, such as special tokens, are missing."""

    def struct(self, listed: Listed | None) -> list[dict[str, Any]] | None:
        """A value of the table."""
        if listed is None:
            return None
        return [{"token_id": token, "token": self.texts[token], "value": value} for token, value in listed]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the listed tokens; nothing where none are to be listed."""
    modules = modules_of_the_model(config)
    if not modules or not config[Record].weight_tokens:
        return {}
    subject = config.subject
    return {
        "model": subject.model,
        "revision": resolve_model(subject.model).revision,
        "dtype": subject.dtype,
        "paths": subject.paths,
        "modules": modules,
        "sources": {name: found for name, found in source_identities(config).items() if name in modules},
        "weight_tokens": config[Record].weight_tokens,
    }


def modules_of_the_model(config: RunConfig) -> list[str]:
    """Those modules of the run whose units have weights."""
    return [name for name in modules_of(config) if needs_model([name])]


def plan(config: RunConfig, tables: Tables) -> list[Shard]:  # noqa: ARG001 - the contract of a stage
    """A shard for each module of the model; none where no tokens are to be listed."""
    if not config[Record].weight_tokens:
        return []
    modules = modules_of_the_model(config)
    return [Shard(f"part-{number:05d}", {"module": module}) for number, module in enumerate(modules)]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """List the tokens of one module's units."""
    from pipeline.subjects.hook_points import find_hook_points
    from pipeline.subjects.loading.model_loading import load_subject

    subject = context.config.subject
    loaded = load_subject(subject)
    site = find_hook_points(loaded.model.base_model, [shard.key["module"]], subject)[shard.key["module"]]
    vocabulary = context.once("vocabulary", lambda _: listable(loaded.tokenizer, loaded.model))
    return {UNIT_TOKENS.name: token_rows(loaded.model, site, vocabulary, context.config[Record].weight_tokens)}


def listable(tokenizer: Any, model: Any) -> Vocabulary:
    """The tokens of a model that stand for text; rows of the embedding beyond the tokenizer's vocabulary do not."""
    from pipeline.subjects.token_text import TokenTexts

    texts = TokenTexts(tokenizer)
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])
    found = {token_id: texts.one(token_id) for token_id in range(size)}
    return Vocabulary({token_id: text for token_id, text in found.items() if text})


def token_rows(model: Any, site: "HookPoint", vocabulary: Vocabulary, count: int) -> pa.Table:
    """Rows of the table for the units of a site.

    Args:
        model: a transformers model with its head, if it has one.
        count: tokens in each list.
    """
    from pipeline.subjects.hook_points import UnitVectors
    from pipeline.subjects.vocabulary import embedding_rows, find_unembedding

    vectors = UnitVectors(None, None) if site.vectors is None else site.vectors()
    nothing: list[Listed | None] = [None] * site.width
    columns = {"promoted": nothing, "suppressed": nothing, "input_tokens": nothing}
    head = None if vectors.writes is None else find_unembedding(model, vectors.writes.shape[1])
    if head is not None and vectors.writes is not None:
        projected = head.project(vectors.writes)
        columns["promoted"], columns["suppressed"] = ends(projected, head.weight, vocabulary, count)
    if vectors.reads is not None and vectors.reads.shape[1] == model.get_input_embeddings().weight.shape[1]:
        rows = embedding_rows(model, site)
        columns["input_tokens"], _ = ends(vectors.reads.to(rows.device, rows.dtype), rows, vocabulary, count)
    lists = {name: [vocabulary.struct(listed) for listed in found] for name, found in columns.items()}
    units = {"module": [site.name] * site.width, "index": list(range(site.width))}
    return pa.table({**units, **lists}, schema=UNIT_TOKENS.schema)


def ends(
    vectors: "torch.Tensor", tokens: "torch.Tensor", vocabulary: Vocabulary, count: int
) -> tuple[list[Listed | None], list[Listed | None]]:
    """The tokens with the largest and with the smallest product, for each unit; None for a vector that is zero or not finite.

    Args:
        vectors: (U, D)
        tokens: (V, D), on the same device.
        count: tokens in each list.
    """
    import torch

    unlisted = sorted(set(range(len(tokens))) - vocabulary.texts.keys())
    left_out = torch.tensor(unlisted, dtype=torch.long, device=tokens.device)
    count = min(count, len(tokens) - len(unlisted))
    most: list[Listed | None] = []
    least: list[Listed | None] = []
    with torch.inference_mode(), tqdm(total=len(vectors), desc="units", unit="unit", leave=False, disable=None) as bar:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            products = (block @ tokens.T).float()  # (U, D), (D, V) -> (U, V)
            known = (products.isfinite().all(dim=1) & block.any(dim=1)).tolist()
            most += _lists(products.index_fill_(1, left_out, -torch.inf).topk(count), known, -1)
            least += _lists(products.index_fill_(1, left_out, torch.inf).topk(count, largest=False), known, 1)
            bar.update(len(block))
    return most, least


def _lists(found: Any, known: list[bool], sign: int) -> Iterator[Listed | None]:
    """The results of a topk by falling value (sign -1) or rising value (1), ties by rising token id."""
    for values, ids, there in zip(found.values.tolist(), found.indices.tolist(), known, strict=True):
        pairs = sorted(zip(ids, values, strict=True), key=lambda pair: (sign * pair[1], pair[0]))
        yield pairs if there else None


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
