"""The simulate stage: explanations to expected activations on sequences that the explainer has not seen.

Beside every explanation the controls are simulated on the same report sequences: explanations of other units of the
module (`shuffled`), each unit's with as many candidates as the unit itself has, so that one of them can be chosen on `select` in the same
way; the opposite of each candidate in words (`inverted`), the bare top token (`top_token`), a sentence that suits every unit
(`constant`), and the mean activation of every token (`lookup`). Only tokens and a text ever reach a simulator.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.config import LanguageModel, RunConfig
from pipeline.config.section import choice
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.stage import Context, EstimateHints, Methods, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATION_KEYS, EXPLANATIONS, SIMULATIONS
from stages.estimates import simulate_sizes
from stages.evidence import RecordedUnits
from stages.human_explainer import controls_by, explainers, of_explainer, round_of
from stages.methods import model_use, open_method, prompt_digests
from stages.settings import Explain, Simulate
from stages.simulate import SIMULATORS
from stages.simulate.lookup import predicted
from stages.simulate.simulation import Simulation, Simulator
from stages.token_means import TokenMeans, means_of_units
from stages.units import draw, unit_name, unit_shards

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]
JOBS_AT_ONCE = 8
"""Explanations simulated side by side on one unit, behind an endpoint."""
ALL_JOBS = 1_000_000
"""In a batch, which is submitted when all has been asked."""
CLAUSE = re.compile(r"\s*;\s*(?:(?:to a lesser degree|also weakly)\s+)?")
"""Between the clauses of an explanation by statistics."""
CONSTANT = "ordinary English text"
LOOKUP = "lookup"
POOLED = ["index", "candidate", "text"]
"""What is read of the explanations of other units."""
Pool = dict[int, list[tuple[int, str]]]
"""By unit, its candidates with their texts, the explainer's own favourite first."""


@dataclass(frozen=True)
class Job:
    """One text to simulate for one unit, on the report sequences and, where it is one of several to choose from, on the select ones."""

    keys: Row
    """Of the rows: module, index, polarity, explainer, candidate."""
    control: str
    source: int
    text: str
    source_candidate: int = 0
    """Which of the explanations of the unit that it is made for."""
    on_select: bool = True
    means: TokenMeans | None = None
    """What is predicted in the place of a simulator."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a simulation."""
    simulate = config[Simulate]
    method = choice(SIMULATORS, simulate.used)
    return {
        "seed": config.run.seed,
        "simulate": simulate.model_dump(exclude={"shard_units", "engine", "embedder", "variants"}),
        "engine": engine_settings(simulate.engine),
        "prompts": prompt_digests(method, simulate.engine, config.run.prompts),
        **method.settings(simulate),
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Simulate the explanations and the controls of the units of one shard, units side by side."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    simulate, recorded = context.config[Simulate], RecordedUnits.of(context)
    simulator = await open_method("simulator", simulate.used, SIMULATORS, simulate, simulate.engine, context)
    explained, is_unit = pc.field("text").is_valid(), context.tables.is_unit(module, indices, polarity)
    mine = is_unit & explained & of_explainer(context.config[Explain].name)
    own: list[Row] = context.tables.read(EXPLANATIONS, mine).to_pylist()
    where = (pc.field("module") == module) & (pc.field("polarity") == polarity) & explained
    pool: Pool = context.latest(
        "pool",
        f"{module} {polarity} {shard.key.get('pool')}",
        lambda _: by_unit(context.tables.read(EXPLANATIONS, where, POOLED, shards_of_pool(shard)).to_pylist()),
    )
    sequences = await asyncio.to_thread(recorded.sequences, module, indices, ("select", "report"), polarity)
    tokens = await asyncio.to_thread(recorded.tokens, [seq_id for pairs in sequences.values() for seq_id, _ in pairs])
    means = await asyncio.to_thread(means_of_units, context, module, indices, polarity)
    units_at_once, jobs_at_once = _at_once(simulate.engine, len(indices))

    async def work(index: int) -> list[Row]:
        jobs = unit_jobs(index, own, pool, means[index], context.config)
        return await simulate_unit(jobs, sequences[index], tokens, simulator, simulate.name, jobs_at_once)

    rows = [row for unit in await context.gather(work, indices, units_at_once) for row in unit]
    return {SIMULATIONS.name: SIMULATIONS.of_rows(rows)}


def _at_once(engine: LanguageModel | None, units: int) -> tuple[int, int]:
    """Units side by side, and explanations of one unit: all of a batch, one after the other in this process."""
    if engine is None or engine.base_url is None:
        return 1, 1
    return units, JOBS_AT_ONCE if engine.mode == "live" else ALL_JOBS


def by_unit(rows: list[Row]) -> Pool:
    """POOLED rows as a pool."""
    found: Pool = {}
    for row in rows:
        found.setdefault(row["index"], []).append((row["candidate"], row["text"]))
    return {index: sorted(texts) for index, texts in found.items()}


def unit_jobs(index: int, explanations: list[Row], pool: Pool, means: TokenMeans, config: RunConfig) -> list[Job]:
    """What is simulated for one unit: its candidates, then the controls.

    Args:
        explanations: rows of the explanations table, those of the unit among them.
        pool: the explanations of units of the module, of the same polarity.
        means: what is known of the unit's tokens.
    """
    own = [row for row in explanations if row["index"] == index]
    if not own:
        return []
    jobs = [
        Job({name: row[name] for name in EXPLANATION_KEYS}, "", index, row["text"], row["candidate"]) for row in own
    ]
    keys = jobs[0].keys | {
        "candidate": round_of(config[Explain].name)
    }  # which tells those of explanations by hand apart
    for source in _drawn(index, keys, pool, config):
        texts = pool[source][: len(own)]
        jobs += [Job(keys, "shuffled", source, text, number, len(texts) > 1) for number, text in texts]
    jobs += [Job(keys, "inverted", index, opposite(row["text"]), row["candidate"], on_select=False) for row in own]
    jobs.append(Job(keys, "constant", index, CONSTANT, on_select=False))
    if means.top is not None:
        jobs.append(Job(keys, "top_token", index, f'the token "{means.top.strip()}"', on_select=False))
    if means.means:
        jobs.append(Job(keys, LOOKUP, index, "", on_select=False, means=means))
    return jobs


def opposite(explanation: str) -> str:
    """Words that say the opposite; its clauses are joined, as an exception that ends at the first of them would leave the others out."""
    return "anything except " + " and ".join(filter(None, CLAUSE.split(explanation.strip(" ."))))


def _drawn(index: int, keys: Row, pool: Pool, config: RunConfig) -> list[int]:
    """The other units whose explanations are a unit's controls."""
    others = sorted(pool.keys() - {index})
    rng = draw(config.run.seed, "controls/" + unit_name(keys["module"], index, keys["polarity"]))
    return [others[place] for place in rng.permutation(len(others))[: config[Simulate].controls]]


async def simulate_unit(
    jobs: list[Job],
    sequences: list[tuple[int, str]],
    tokens: Mapping[int, list[str]],
    simulator: Simulator,
    name: str,
    at_once: int,
) -> list[Row]:
    """Rows of the simulations table for one unit.

    Args:
        sequences: (seq_id, split) of the unit.
        name: that of the simulator.
        at_once: explanations under way at a time.
    """

    async def simulate(job: Job) -> list[Row]:
        shown = [(seq_id, split) for seq_id, split in sequences if split == "report" or job.on_select]
        said = {
            **job.keys,
            "simulator": name,
            "control": job.control,
            "source": job.source,
            "source_candidate": job.source_candidate,
            "model": "" if job.means else simulator.model,
            "prompt_id": "" if job.means else simulator.prompt_id,
        }
        await asyncio.sleep(0)  # an interruption takes effect between explanations
        try:
            texts = [tokens[seq_id] for seq_id, _ in shown]
            if job.means:
                results = predicted(job.means.means, job.means.rest, texts)
            else:
                results = await simulator.simulate(job.text, texts)
        except Exception as error:
            if stops_the_shard(error):
                raise
            results = [Simulation.failed(f"{type(error).__name__}: {error}") for _ in shown]
        return [
            {**said, "seq_id": seq_id, "split": split, **vars(result), "error": result.error or None}
            | {"status": "failed" if result.expected is None else "ok"}
            for (seq_id, split), result in zip(shown, results, strict=True)
        ]

    return [row for rows in await bounded_gather(simulate, jobs, at_once) for row in rows]


def simulations(config: RunConfig) -> list[Methods]:
    """Every explainer with every simulator."""
    return [{**explainer, "simulator": name} for explainer in explainers(config) for name in config[Simulate].names]


def check(config: RunConfig) -> None:
    """Raises UserError where a model that simulates, its device or a prompt is not there."""
    refuse_unknown_prompts(config.run.prompts)
    settings(config)
    check_engine(config[Simulate].engine)


SIMULATE = Stage(
    name="simulate",
    title="simulate activations",
    reads=("explain", "record.merge", "corpus"),
    writes=(SIMULATIONS,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config[Simulate].shard_units),
    process=process,
    splits=("select", "report"),
    check=check,
    methods=simulations,
    pool=lambda config, methods: ("explain", {"explainer": controls_by(config, methods)}),
    asks=lambda config: model_use("simulator", config[Simulate].used, SIMULATORS, config[Simulate].engine),
    estimate=EstimateHints(simulate_sizes, replies_grow=True),
    method="simulation",
    version=3,
)
