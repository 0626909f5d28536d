"""The judge stage: a language model says which texts fit an explanation; how often it is right scores the explanation.

`detection` shows texts of which some hold what the unit responds to, `fuzzing` texts of which some have the right tokens
marked (Paulo et al. 2024). Explanations of other units of the module, asked about the same texts, are the control.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.execution.stage import ModelUse, Rows, Shard, Stage
from pipeline.llm.engine import Engine
from pipeline.llm.load import check_engine, engine_settings, load_engine
from pipeline.prompts import digests_with_examples
from pipeline.schemas import EXAMPLE_SCORES, JUDGEMENTS, NEGATIVES, SCORES
from pipeline.storage.tables import Tables
from stages.evidence import Exemplar
from stages.judge.answers import Answer, answers
from stages.judge.items import Item, detection_items, fuzzing_items
from stages.judge.measures import measures
from stages.recorded_units import RecordedUnits
from stages.settings import Judge
from stages.units import draw, unit_name, unit_shards

KEYS = ("module", "index", "polarity", "explainer", "candidate")
Row = dict[str, Any]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a judgement."""
    return {
        "seed": config.run.seed,
        "judge": config[Judge].model_dump(exclude={"shard_units", "engine"}),
        "engine": engine_settings(config[Judge].engine),
        "prompts": {name: digests_with_examples(f"judge/{name}.") for name in config[Judge].methods},
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of units; none where no method is named."""
    return unit_shards(config, tables, config[Judge].shard_units) if config[Judge].methods else []


async def process(shard: Shard, context: Context) -> Rows:
    """Judge the published explanations of the units of one shard, units side by side."""
    module, polarity, indices = shard.key["module"], shard.key["polarity"], shard.key["indices"]
    engine = context.once("engine", lambda _: load_engine(context.config[Judge].engine, context))
    published = context.once(f"published of {module} {polarity}", lambda _: _published(module, polarity, context))
    exemplars = await asyncio.to_thread(_report_exemplars, module, indices, polarity, RecordedUnits.of(context))
    model = context.config[Judge].engine
    in_process = model is None or model.base_url is None

    async def judge(index: int) -> list[tuple[list[Row], Row]]:
        own = [row for row in published if row["index"] == index]
        others = [row for row in published if row["index"] != index]
        return [await judge_explanation(row, others, exemplars[index], engine, context.config, method)
                for row in own for method in context.config[Judge].methods]  # fmt: skip

    judged = [one for unit in await bounded_gather(judge, indices, 1 if in_process else len(indices)) for one in unit]
    rows = [row for texts, _ in judged for row in texts]
    return {
        JUDGEMENTS.name: pa.Table.from_pylist(rows, schema=JUDGEMENTS.schema),
        EXAMPLE_SCORES.name: _scores_table([score for _, score in judged]),
    }


def _report_exemplars(
    module: str, indices: list[int], polarity: str, recorded: RecordedUnits
) -> dict[int, list[Exemplar]]:
    """The exemplars of some units, and their hard negatives where there are any."""
    found = recorded.exemplars(module, indices, ("report",), polarity)
    hard = recorded.exemplars(module, indices, ("report",), polarity, NEGATIVES)
    return {index: [*found[index], *hard[index]] for index in indices}


def _published(module: str, polarity: str, context: Context) -> list[Row]:
    """The explanations of a module that were scored on the report split, one a unit."""
    where = (ds.field("module") == module) & (ds.field("polarity") == polarity)
    where &= ds.field("status").isin(["ok", "undefined"]) & ds.field("text").is_valid()
    found: list[Row] = context.tables.read(SCORES, where, [*KEYS, "text"]).to_pylist()
    return found


async def judge_explanation(
    row: Row, others: Sequence[Row], exemplars: Sequence[Exemplar], engine: Engine, config: RunConfig, method: str
) -> tuple[list[Row], Row]:
    """Rows of both tables for one explanation by one method."""
    await asyncio.sleep(0)  # an interruption takes effect between explanations
    rng = draw(config.run.seed, f"{method}/" + unit_name(row["module"], row["index"], row["polarity"]))
    judge = config[Judge]
    items = (
        detection_items(exemplars, judge.examples)
        if method == "detection"
        else fuzzing_items(exemplars, judge.examples, rng)
    )
    items = [items[place] for place in rng.permutation(len(items))]
    controls = [others[place] for place in rng.permutation(len(others))[: judge.controls]]
    found = [await _answers(engine, method, shown["text"], items, judge.texts) for shown in (row, *controls)]
    keys = {name: row[name] for name in KEYS}
    rows = []
    for shown, given in zip((row, *controls), found, strict=True):
        control = "" if shown is row else "shuffled"
        rows += [_row(keys, method, control, shown["index"], item, answer, engine.name)
                 for item, answer in zip(items, given, strict=True)]  # fmt: skip
    return rows, _score(keys | {"text": row["text"], "method": method}, items, found)


async def _answers(engine: Engine, method: str, text: str, items: Sequence[Item], pack: int) -> list[Answer]:
    """An answer for each item; an error of the engine's own is the answer of the texts in its request."""

    async def ask(start: int) -> list[Answer]:
        part = items[start : start + pack]
        try:
            return await answers(engine, f"judge/{method}.v1", text, [item.text for item in part])
        except Exception as error:
            if stops_the_shard(error):
                raise
            return [Answer(None, None, f"{type(error).__name__}: {error}") for _ in part]

    starts = range(0, len(items), pack)
    return [answer for part in await bounded_gather(ask, starts, max(len(starts), 1)) for answer in part]


def _row(
    keys: Mapping[str, Any], method: str, control: str, source: int, item: Item, answer: Answer, model: str
) -> Row:
    return {
        **keys,
        "method": method,
        "control": control,
        "source": source,
        "seq_id": item.seq_id,
        "band": item.band,
        "fits": item.fits,
        "says": answer.says,
        "probability": answer.probability,
        "model": model,
        "prompt_id": f"judge/{method}.v1",
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "status": "failed" if answer.says is None else "ok",
        "error": answer.error or None,
    }


def _score(keys: Row, items: Sequence[Item], found: Sequence[list[Answer]]) -> Row:
    """One row of EXAMPLE_SCORES: texts without an answer are left out and never counted as wrong or right."""
    own, *controls = [_measured(items, given) for given in found]
    answered = [item for item, answer in zip(items, found[0], strict=True) if answer.says is not None]
    errors = [answer.error for answer in found[0] if answer.says is None]
    means = {
        f"{name}_shuffled": _mean([control[name] for control in controls]) for name in ("balanced_accuracy", "auroc")
    }
    status = "ok" if np.isfinite(own["balanced_accuracy"]) else "failed" if errors else "undefined"
    told = {"ok": errors and f"{len(errors)} texts are left out: {errors[0]}", "failed": errors and errors[0],
            "undefined": "there are not both texts that fit and texts that do not"}[status]  # fmt: skip
    fits = sum(item.fits for item in answered)
    return {**keys, **own, **means, "n_shuffled": len(controls), "n_fitting": fits, "n_other": len(answered) - fits,
            "status": status, "error": told or None}  # fmt: skip


def _measured(items: Sequence[Item], given: Sequence[Answer]) -> dict[str, float]:
    pairs = [(item.fits, answer) for item, answer in zip(items, given, strict=True) if answer.says is not None]
    return vars(
        measures(
            [fits for fits, _ in pairs], [bool(answer.says) for _, answer in pairs], [a.probability for _, a in pairs]
        )
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def _scores_table(rows: Sequence[Row]) -> pa.Table:
    """A table in which NaN is null."""
    schema = EXAMPLE_SCORES.schema
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema}
    )


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that judges."""
    judge = config[Judge]
    return ModelUse(judge.engine, f"judge {', '.join(judge.methods)}") if judge.engine and judge.methods else None


JUDGE = Stage(
    name="judge",
    title="judge explanations",
    reads=("score", "record.merge", "record.negatives", "corpus"),
    writes=(JUDGEMENTS, EXAMPLE_SCORES),
    settings=settings,
    plan=plan,
    process=process,
    splits=("report",),
    check=lambda config: check_engine(config[Judge].engine),
    asks=model_use,
    method="simulation",
)
