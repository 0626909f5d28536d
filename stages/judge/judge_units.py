"""The judge stage: a language model says which texts fit an explanation; how often it is right scores the explanation.

Explanations of other units of the module, asked about the same texts, are the control.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice, summaries
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.stage import Context, Methods, ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import Prompt, refuse_unknown_prompts
from pipeline.schemas import (
    EXPLANATION,
    EXPLANATION_KEYS,
    NEGATIVES,
    OF_EXPLANATION,
    OF_SEQUENCE,
    OUTCOME,
    column,
    unit_table,
)
from stages.asking import Asker, open_asker
from stages.evidence import Exemplar, RecordedUnits
from stages.human_explainer import controls_by, explainers, of_explainer
from stages.judge import JUDGE_METHODS
from stages.judge.items import Answer, Item, answers
from stages.score.score_units import SCORES
from stages.settings import Explain, Judge, Simulate
from stages.units import draw, unit_name, unit_shards

if TYPE_CHECKING:
    import pandas as pd


_METHOD = column(
    "method", pa.string(), "; ".join(f"{name}: {summary}" for name, summary in summaries(JUDGE_METHODS).items())
)

JUDGEMENTS = unit_table(
    "judgements",
    1,
    *EXPLANATION,
    _METHOD,
    column("control", pa.string(), "empty for the explanation itself, shuffled for another unit's"),
    column("source", pa.int32(), "unit whose explanation was judged; differs from index when shuffled"),
    column("seq_id", pa.int64(), "the sequence in `corpus`"),
    column("band", pa.string(), "band of the exemplar"),
    column("fits", pa.bool_(), "the truth: the unit responds to the text, or to the marked tokens"),
    column("says", pa.bool_(), "the judge's answer"),
    column("probability", pa.float64(), "P(yes) / (P(yes) + P(no)); null without log-probabilities"),
    column("model", pa.string(), "language model that judged"),
    column("prompt_id", pa.string(), "prompt in prompts/ and its version"),
    column("prompt_tokens", pa.int32(), "tokens of the prompt; a request's first text carries all of them"),
    column("completion_tokens", pa.int32(), "tokens of the reply, likewise"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "method", "control", "source", "seq_id", "band", "fits"],
    refers=[OF_EXPLANATION, OF_SEQUENCE],
)

EXAMPLE_SCORES = unit_table(
    "example_scores",
    2,
    *EXPLANATION,
    column("text", pa.string(), "the explanation"),
    _METHOD,
    column("model", pa.string(), "language model that judged"),
    column("balanced_accuracy", pa.float64(), "mean share of right answers on both kinds of text; 0.5 by chance"),
    column("f1", pa.float64(), "F1 of the yes answers"),
    column("auroc", pa.float64(), "area under the ROC curve of the probabilities; null without them"),
    column("f1_always_yes", pa.float64(), "F1 of a judge that always says yes"),
    column("balanced_accuracy_shuffled", pa.float64(), "mean balanced accuracy under other units' explanations"),
    column("auroc_shuffled", pa.float64(), "mean AUROC under other units' explanations"),
    column("n_shuffled", pa.int32(), "explanations of other units behind these"),
    column("n_fitting", pa.int32(), "texts that fit and were answered, report split"),
    column("n_other", pa.int32(), "texts that do not and were answered, report split"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "method"],
    refers=[OF_EXPLANATION],
)


Row = dict[str, Any]
ALL = 1_000_000
"""Side by side, behind an endpoint: it bounds what is in flight, and a batch is submitted when all has been asked."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a judgement."""
    judge = config[Judge]
    return {
        "seed": config.run.seed,
        "judge": judge.model_dump(exclude={"shard_units", "engine", "variants"}),
        "engine": engine_settings(judge.engine),
        "prompts": _prompt(config).digests(),
    }


def _prompt(config: RunConfig) -> Prompt:
    return Prompt(choice(JUDGE_METHODS, config[Judge].used).prompt, config.run.prompts)


async def process(shard: Shard, context: Context) -> Rows:
    """Judge the published explanations of the units of one shard, units side by side."""
    module, polarity, indices = shard.key["module"], shard.key["polarity"], shard.key["indices"]
    config, model = context.config, context.config[Judge].engine
    asker = open_asker(model, context)
    columns = [*EXPLANATION_KEYS, "text"]
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
    recorded, unit = RecordedUnits.of(context), (module, indices, ("report",), polarity)
    exemplars = await asyncio.to_thread(recorded.exemplars, *unit)
    hard = await asyncio.to_thread(recorded.exemplars, *unit, NEGATIVES)
    at_once = 1 if model is None or model.base_url is None else ALL

    async def judge(index: int) -> list[tuple[list[Row], Row]]:
        own = [row for row in explanations if row["index"] == index]
        others = [row for row in pool if row["index"] != index]

        async def judge_one(row: Row) -> tuple[list[Row], Row]:
            return await judge_explanation(row, others, exemplars[index] + hard[index], asker, config, at_once)

        return await bounded_gather(judge_one, own, at_once)

    units = await context.gather(judge, indices, at_once)
    judged = [one for unit in units for one in unit]
    return {
        JUDGEMENTS.name: JUDGEMENTS.of_rows([row for texts, _ in judged for row in texts]),
        EXAMPLE_SCORES.name: EXAMPLE_SCORES.of_rows([score for _, score in judged]),
    }


async def judge_explanation(
    row: Row,
    others: Sequence[Row],
    exemplars: Sequence[Exemplar],
    asker: Asker,
    config: RunConfig,
    at_once: int = 1,
) -> tuple[list[Row], Row]:
    """Rows of both tables for one explanation; it and its controls are judged side by side, `at_once` at most."""
    await asyncio.sleep(0)  # an interruption takes effect between explanations
    method = config[Judge].used
    rng = draw(config.run.seed, f"{method}/" + unit_name(row["module"], row["index"], row["polarity"]))
    judge, prompt = config[Judge], _prompt(config)
    items: list[Item] = choice(JUDGE_METHODS, method).items(exemplars, judge.examples, rng)
    items = [items[place] for place in rng.permutation(len(items))]
    controls = [others[place] for place in rng.permutation(len(others))[: judge.controls]]
    keys = {name: row[name] for name in EXPLANATION_KEYS} | {"method": judge.name, "model": asker.engine.name}

    async def answer(shown: Row) -> list[Answer]:
        return await _answers(asker, prompt, shown["text"], items, judge)

    rows: list[Row] = []
    judged = (row, *controls)
    for shown, found in zip(judged, await bounded_gather(answer, judged, at_once), strict=True):
        said = {
            **keys,
            "control": "" if shown is row else "shuffled",
            "source": shown["index"],
            "prompt_id": prompt.id,
        }
        rows += [
            {**said, **vars(item), **vars(answer), "error": answer.error or None}
            | {"status": "failed" if answer.says is None else "ok"}
            for item, answer in zip(items, found, strict=True)
        ]
    return rows, {**keys, "text": row["text"], **_score(rows, len(controls))}


async def _answers(asker: Asker, prompt: Prompt, text: str, items: Sequence[Item], judge: Judge) -> list[Answer]:
    """An answer for each item; an error of the engine's own is the answer of the texts in its request."""

    async def ask(start: int) -> list[Answer]:
        part = items[start : start + judge.texts]
        try:
            return await answers(asker, prompt, text, [item.text for item in part], judge.max_tokens)
        except Exception as error:
            if stops_the_shard(error):
                raise
            return [Answer(None, error=f"{type(error).__name__}: {error}") for _ in part]

    starts = range(0, len(items), judge.texts)
    return [answer for part in await bounded_gather(ask, starts, max(len(starts), 1)) for answer in part]


def _score(rows: Sequence[Row], controls: int) -> Row:
    """Scores from the rows of one explanation: texts without an answer are left out, never counted as wrong or right."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=["source", "control", "fits", "says", "probability", "error"])
    answered = table[table["says"].notna()]
    own = answered[answered["control"] == ""]
    errors = table.loc[table["says"].isna() & (table["control"] == ""), "error"]
    others = pd.DataFrame(
        [agreement(part) for _, part in answered[answered["control"] != ""].groupby("source")],
        columns=["balanced_accuracy", "auroc"],
    )
    found = agreement(own)
    status = "ok" if np.isfinite(found["balanced_accuracy"]) else "failed" if len(errors) else "undefined"
    error = errors.iloc[0] if len(errors) else None
    if status == "undefined":
        error = "there are not both texts that fit and texts that do not"
    elif status == "ok" and error:
        error = f"{len(errors)} texts are left out: {error}"
    return {
        **found,
        **{f"{name}_shuffled": mean for name, mean in others.mean().items()},
        "n_shuffled": controls,
        "n_fitting": int(own["fits"].sum()),
        "n_other": len(own) - int(own["fits"].sum()),
        "status": status,
        "error": error,
    }


def agreement(answered: "pd.DataFrame") -> dict[str, float]:
    """How well answers agree with the truth; nothing is defined (NaN) unless some texts fit and some do not.

    Args:
        answered: texts with `fits`, the truth, `says`, the answer, and `probability`, of yes: AUROC needs all of them.
    """
    from scipy.stats import mannwhitneyu

    truth, says = answered["fits"].to_numpy(dtype=bool), answered["says"].to_numpy(dtype=bool)
    chances = answered["probability"].to_numpy(dtype=np.float64)
    if truth.all() or not truth.any():
        return dict.fromkeys(("balanced_accuracy", "f1", "auroc", "f1_always_yes"), np.nan)
    # the share of (fitting, other) pairs in which the fitting one has the larger probability, ties counting half
    pairs = truth.sum() * (~truth).sum()
    auroc = mannwhitneyu(chances[truth], chances[~truth], method="asymptotic").statistic / pairs
    return {
        "balanced_accuracy": float(np.mean([says[truth].mean(), (~says[~truth]).mean()])),
        "f1": float(2 * (truth & says).sum() / (truth.sum() + says.sum())),
        "auroc": float(auroc) if np.isfinite(chances).all() else np.nan,
        "f1_always_yes": float(2 * truth.sum() / (truth.sum() + len(truth))),
    }


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that judges."""
    judge = config[Judge]
    return ModelUse(judge.engine, f"judge {judge.name}") if judge.engine else None


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
    """Raises UserError where the judge, its device or a prompt is not there."""
    check_engine(config[Judge].engine)
    refuse_unknown_prompts(config.run.prompts)


JUDGE = Stage(
    name="judge",
    title="judge explanations",
    reads=("score", "record.merge", "record.negatives", "corpus"),
    writes=(JUDGEMENTS, EXAMPLE_SCORES),
    settings=settings,
    methods=judgements,
    pool=controls,
    plan=lambda config, tables: unit_shards(config, tables, config[Judge].shard_units),
    process=process,
    splits=("report",),
    check=check,
    asks=model_use,
    method="simulation",
)
