"""The judge stage: whether texts fit an explanation, as a language model, an embedder or new texts have it, against what the unit does.

Explanations of other units of the module, asked about the same texts, are the control.
"""

import asyncio
from typing import Any

import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.stage import Context, EstimateHints, Methods, ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATION_KEYS
from stages.human_explainer import controls_by, explainers, of_explainer
from stages.judge import JUDGE_METHODS
from stages.judge.example_scorer import ExampleScorer, unit_texts
from stages.judge.judge_explanation import Row, controls_of, judge_explanation
from stages.judge.judge_tables import EXAMPLE_SCORES, JUDGEMENTS
from stages.methods import Method, build_method, model_use
from stages.score.score_units import SCORES
from stages.settings import Explain, Judge, Simulate
from stages.units import unit_shards

ALL = 1_000_000
"""Side by side, behind an endpoint: it bounds what is in flight, and a batch is submitted when all has been asked."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a judgement."""
    judge = config[Judge]
    method: Method = choice(JUDGE_METHODS, judge.used)
    engine = None if method.model == "none" else judge.engine
    return {
        "seed": config.run.seed,
        "judge": judge.model_dump(exclude={"shard_units", "engine", "variants"}),
        "engine": engine_settings(engine),
        "prompts": {
            file: digest for one in method.load_prompts(config.run.prompts) for file, digest in one.digests().items()
        },
        **method.settings(config),
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Judge the published explanations of the units of one shard, units side by side."""
    judged = await judge_shard(shard, context, open_scorer(context))
    return {
        JUDGEMENTS.name: JUDGEMENTS.of_rows([row for rows, _ in judged for row in rows]),
        EXAMPLE_SCORES.name: EXAMPLE_SCORES.of_rows([score for _, score in judged]),
    }


async def ask_only(shard: Shard, context: Context) -> None:
    """The part of it that asks a language model; no subject is run."""
    scorer = open_scorer(context)
    scorer.only_asks = True
    await judge_shard(shard, context, scorer)


def open_scorer(context: Context) -> ExampleScorer:
    """The method of a run, made once."""
    judge = context.config[Judge]
    engine = judge.engine if model_of(context.config) else None
    return context.once("scorer", lambda _: build_method(judge.used, JUDGE_METHODS, context, engine, context))


async def judge_shard(shard: Shard, context: Context, scorer: ExampleScorer) -> list[tuple[list[Row], Row]]:
    """For each published explanation of a shard its rows of `judgements` and its row of `example_scores`."""
    module, polarity, indices = shard.key["module"], shard.key["polarity"], shard.key["indices"]
    config, columns = context.config, [*EXPLANATION_KEYS, "text"]
    published = pc.field("text").is_valid() & pc.field("status").isin(["ok", "undefined"])  # one explanation a unit
    by = of_explainer(config[Explain].name) & (pc.field("simulator") == config[Simulate].name)
    mine = published & by & context.tables.is_unit(module, indices, polarity)
    explanations: list[Row] = context.tables.read(SCORES, mine, columns).to_pylist()
    where = (pc.field("module") == module) & (pc.field("polarity") == polarity) & published
    pool: list[Row] = context.latest(
        "pool",
        f"{module} {polarity} {shard.key.get('pool')}",
        lambda _: context.tables.read(SCORES, where, columns, shards_of_pool(shard)).to_pylist(),
    )
    texts = await asyncio.to_thread(unit_texts, context, module, indices, polarity)
    asked = [(row, controls_of(row, pool, config)) for row in explanations]
    scorer.prepare(list(texts.values()), [one["text"] for row, controls in asked for one in (row, *controls)])
    engine = config[Judge].engine
    at_once = ALL if model_of(config) and engine and engine.base_url else 1

    async def judge_unit(index: int) -> list[tuple[list[Row], Row]]:
        async def judge_one(one: tuple[Row, list[Row]]) -> tuple[list[Row], Row]:
            return await judge_explanation(*one, texts[index], scorer, config, at_once)

        return await bounded_gather(judge_one, [one for one in asked if one[0]["index"] == index], at_once)

    units = await context.gather(judge_unit, indices, at_once)
    return [one for unit in units for one in unit]


def model_of(config: RunConfig) -> ModelUse | None:
    """The language model that judges; None for a method that asks none."""
    judge = config[Judge]
    return model_use("judge", judge.used, JUDGE_METHODS, judge.engine)


def judgements(config: RunConfig) -> list[Methods]:
    """Every method for every explainer, for the candidates that the first simulator chose."""
    simulator = config[Simulate].names[0]
    return [
        {**explainer, "simulator": simulator, "method": name}
        for name in config[Judge].names
        for explainer in explainers(config)
    ]


def controls(config: RunConfig, methods: Methods) -> tuple[str, Methods]:
    """Where explanations of other units are taken from."""
    return "score", {"explainer": controls_by(config, methods), "simulator": methods["simulator"]}


def check(config: RunConfig) -> None:
    """Raises UserError where the judge, its device, a prompt or another model is not there."""
    if model_of(config):
        check_engine(config[Judge].engine)
    choice(JUDGE_METHODS, config[Judge].used).check(config)
    refuse_unknown_prompts(config.run.prompts)


JUDGE = Stage(
    name="judge",
    title="judge explanations",
    reads=("score", "judge.texts", "record.negatives", "corpus"),
    writes=(JUDGEMENTS, EXAMPLE_SCORES),
    settings=settings,
    methods=judgements,
    pool=controls,
    plan=lambda config, tables: unit_shards(config, tables, config[Judge].shard_units),
    process=process,
    splits=("report",),
    check=check,
    asks=model_of,
    estimate=EstimateHints(asking=ask_only, reply=lambda config: choice(JUDGE_METHODS, config[Judge].used).reply),
    method="simulation",
)
