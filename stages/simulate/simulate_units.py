"""The simulate stage: explanations to expected activations on sequences that the explainer has not seen.

Beside every explanation the controls are simulated on the same report sequences: explanations of other units of the
module (`shuffled`), the bare top token (`top_token`), a sentence that suits every unit (`constant`), and the token
lookup table (`lookup`). Only tokens and a text ever reach a simulator.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as ds

from pipeline.config import LanguageModel, RunConfig
from pipeline.config.section import choice
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.stage import Context, EstimateHints, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATION_KEYS, EXPLANATIONS, SIMULATIONS
from stages.estimates import simulate_sizes
from stages.evidence import RecordedUnits, TopToken
from stages.methods import model_use, open_method, prompt_digests
from stages.settings import Simulate
from stages.simulate import SIMULATORS
from stages.simulate.simulator import LookupSimulator, Simulation, Simulator, render_table
from stages.units import draw, unit_name, unit_shards

JOBS_AT_ONCE = 8
"""Explanations simulated side by side on one unit, behind an endpoint."""
ALL_JOBS = 1_000_000
"""In a batch, which is submitted when all has been asked."""
CONSTANT = "ordinary English text"
LOOKUP = "lookup"

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One text to simulate on some sequences of one unit."""

    keys: Mapping[str, Any]
    """Of the rows: module, index, polarity, explainer, candidate."""
    control: str
    source: int
    text: str
    splits: tuple[str, ...] = ("report",)


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a simulation."""
    simulate = config[Simulate]
    method = choice(SIMULATORS, simulate.simulator)
    return {
        "seed": config.run.seed,
        "simulate": simulate.model_dump(exclude={"shard_units", "engine", "embedder"}),
        "engine": engine_settings(simulate.engine),
        "prompts": prompt_digests(method, simulate.engine, config.run.prompts),
        **method.settings(simulate),
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Simulate the explanations and the controls of the units of one shard, units side by side."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    simulate, recorded = context.config[Simulate], RecordedUnits.of(context)
    simulator = await open_method("simulator", simulate.simulator, SIMULATORS, simulate, simulate.engine, context)
    explanations = context.once(
        f"explanations of {module} {polarity}", lambda _: _explanations(module, polarity, context)
    )
    unit = (module, indices)
    sequences = await asyncio.to_thread(recorded.sequences, *unit, ("select", "report"), polarity)
    tokens = await asyncio.to_thread(recorded.tokens, [seq_id for pairs in sequences.values() for seq_id, _ in pairs])
    top_tokens = await asyncio.to_thread(recorded.top_tokens, *unit, polarity)
    units_at_once, jobs_at_once = _at_once(simulate.engine, len(indices))

    async def work(index: int) -> list[Row]:
        jobs = unit_jobs(index, explanations, top_tokens[index], context.config)
        return await simulate_unit(jobs, sequences[index], tokens, simulator, simulate.simulator, jobs_at_once)

    rows = [row for unit in await context.gather(work, indices, units_at_once) for row in unit]
    return {SIMULATIONS.name: SIMULATIONS.of_rows(rows)}


def _explanations(module: str, polarity: str, context: Context) -> list[Row]:
    """The explanations of all units of a module in one polarity; those of other units are controls."""
    where = (ds.field("module") == module) & (ds.field("polarity") == polarity) & ds.field("text").is_valid()
    found: list[Row] = context.tables.read(EXPLANATIONS, where).to_pylist()
    return found


def _at_once(engine: LanguageModel | None, units: int) -> tuple[int, int]:
    """Units side by side, and explanations of one unit: all of a batch, one after the other in this process."""
    if engine is None or engine.base_url is None:
        return 1, 1
    return units, JOBS_AT_ONCE if engine.mode == "live" else ALL_JOBS


def unit_jobs(index: int, explanations: list[Row], top_tokens: list[TopToken], config: RunConfig) -> list[Job]:
    """What is simulated for one unit: its candidates, then the controls on the report sequences.

    Args:
        explanations: rows of the explanations table of all units of the module, of one polarity.
    """
    own = [row for row in explanations if row["index"] == index]
    others = [row for row in explanations if row["index"] != index and row["candidate"] == 0]
    if not own:
        return []
    jobs = [Job(_keys(row), "", index, row["text"], ("select", "report")) for row in own]
    name = unit_name(own[0]["module"], index, own[0]["polarity"])
    order = draw(config.run.seed, "controls/" + name).permutation(len(others))[: config[Simulate].controls]
    keys = _keys(own[0]) | {"candidate": None}
    jobs += [Job(keys, "shuffled", others[place]["index"], others[place]["text"]) for place in order]
    jobs.append(Job(keys, "constant", index, CONSTANT))
    words = [token for top in top_tokens if (token := top.token.strip()) and '"' not in token]
    if words:
        jobs.append(Job(keys, "top_token", index, f'the token "{words[0]}"'))
    if top_tokens:
        jobs.append(Job(keys, LOOKUP, index, render_table(top_tokens)))
    return jobs


def _keys(row: Row) -> Row:
    return {name: row[name] for name in EXPLANATION_KEYS}


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
        shown = [(seq_id, split) for seq_id, split in sequences if split in job.splits]
        method = LookupSimulator() if job.control == LOOKUP else simulator
        said = {
            **job.keys,
            "simulator": LOOKUP if job.control == LOOKUP else name,
            "control": job.control,
            "source": job.source,
            "model": method.model,
            "prompt_id": method.prompt_id,
        }
        results = await _simulate_safely(method, job.text, [tokens[seq_id] for seq_id, _ in shown])
        return [
            {**said, "seq_id": seq_id, "split": split, **_result(result)}
            for (seq_id, split), result in zip(shown, results, strict=True)
        ]

    return [row for rows in await bounded_gather(simulate, jobs, at_once) for row in rows]


async def _simulate_safely(simulator: Simulator, text: str, sequences: list[list[str]]) -> list[Simulation]:
    """What a simulator predicts; an error of its own is the result of each sequence."""
    await asyncio.sleep(0)  # an interruption takes effect between explanations
    try:
        return await simulator.simulate(text, sequences)
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [Simulation.failed(f"{type(error).__name__}: {error}") for _ in sequences]


def _result(result: Simulation) -> Row:
    status = "failed" if result.expected is None else "ok"
    return {**vars(result), "status": status, "error": result.error or None}


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
    asks=lambda config: model_use("simulator", config[Simulate].simulator, SIMULATORS, config[Simulate].engine),
    estimate=EstimateHints(simulate_sizes, replies_grow=True),
    method="simulation",
)
