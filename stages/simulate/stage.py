"""The simulate stage: explanations to expected activations on sequences that the explainer has not seen.

Beside every explanation the controls are simulated on the same report sequences: explanations of other units of the
module (`shuffled`), the bare top token (`top_token`), a sentence that suits every unit (`constant`), and the token
lookup table (`lookup`). Only tokens and a text ever reach a simulator.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import LanguageModel, RunConfig
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.execution.stage import Asking, ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import digests_with_examples
from pipeline.schemas import EXPLANATIONS, SIMULATIONS
from pipeline.subjects.loading.model_source import resolve_model
from stages.evidence import TopToken
from stages.recorded_units import RecordedUnits
from stages.settings import Simulate
from stages.simulate.base import Simulation, Simulator
from stages.simulate.jobs import Job, unit_jobs
from stages.simulate.load import open_simulator
from stages.simulate.lookup import LookupSimulator
from stages.simulate.needs import require
from stages.units import unit_shards

JOBS_AT_ONCE = 8
"""Explanations simulated side by side on one unit, behind an endpoint."""
ALL_JOBS = 1_000_000
"""In a batch, which is submitted when all has been asked."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a simulation."""
    word = config[Simulate].simulator == "word"
    return {
        "seed": config.run.seed,
        "simulate": config[Simulate].model_dump(exclude={"shard_units", "engine", "embedder"}),
        "engine": engine_settings(config[Simulate].engine),
        "embedder": resolve_model(config[Simulate].embedder).revision if word else None,
        "prompts": prompt_digests(config),
    }


def prompt_digests(config: RunConfig) -> dict[str, str]:
    """Digests of the prompt files that the simulator may use."""
    if config[Simulate].engine is None:
        return {}
    name = "word_list" if config[Simulate].simulator == "word" else config[Simulate].simulator
    return digests_with_examples(f"simulate/{name}.")


async def process(shard: Shard, context: Context) -> Rows:
    """Simulate the explanations and the controls of the units of one shard, units side by side."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    simulator = await open_simulator(context)
    explanations = context.once(
        f"explanations of {module} {polarity}", lambda _: _explanations(module, polarity, context)
    )
    sequences, tokens, top_tokens = await asyncio.to_thread(_read, module, indices, polarity, RecordedUnits.of(context))
    units_at_once, jobs_at_once = _at_once(context.config[Simulate].engine, len(indices))

    async def simulate(index: int) -> list[dict[str, Any]]:
        jobs = unit_jobs(index, explanations, top_tokens[index], context.config)
        return await simulate_unit(jobs, sequences[index], tokens, simulator, jobs_at_once)

    rows = [row for unit in await bounded_gather(simulate, indices, units_at_once) for row in unit]
    return {SIMULATIONS.name: pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)}


def _explanations(module: str, polarity: str, context: Context) -> list[dict[str, Any]]:
    """The usable explanations of all units of a module in one polarity; other units' are controls."""
    usable = (ds.field("module") == module) & (ds.field("polarity") == polarity) & (ds.field("status") == "ok")
    found: list[dict[str, Any]] = context.tables.read(EXPLANATIONS, usable).to_pylist()
    return found


def _read(
    module: str, indices: list[int], polarity: str, recorded: RecordedUnits
) -> tuple[dict[int, list[tuple[int, str]]], dict[int, list[str]], dict[int, list[TopToken]]]:
    """For some units: their sequences, the texts of these, and their top tokens."""
    sequences = recorded.sequences(module, indices, ("select", "report"), polarity)
    tokens = recorded.tokens([seq_id for pairs in sequences.values() for seq_id, _ in pairs])
    return sequences, tokens, recorded.top_tokens(module, indices, polarity)


def _at_once(engine: LanguageModel | None, units: int) -> tuple[int, int]:
    """Units side by side, and explanations of one unit: all of a batch, one after the other in this process."""
    if engine is None or engine.base_url is None:
        return 1, 1
    return units, JOBS_AT_ONCE if engine.mode == "live" else ALL_JOBS


async def simulate_unit(
    jobs: list[Job],
    sequences: list[tuple[int, str]],
    tokens: Mapping[int, list[str]],
    simulator: Simulator,
    at_once: int,
) -> list[dict[str, Any]]:
    """Rows of the simulations table for one unit.

    Args:
        at_once: explanations under way at a time.
    """

    async def simulate(job: Job) -> list[dict[str, Any]]:
        shown = [(seq_id, split) for seq_id, split in sequences if split in job.splits]
        method = LookupSimulator() if job.control == "lookup" else simulator
        results = await simulate_safely(method, job.text, [tokens[seq_id] for seq_id, _ in shown])
        return [
            _row(job, method, seq_id, split, result) for (seq_id, split), result in zip(shown, results, strict=True)
        ]

    return [row for rows in await bounded_gather(simulate, jobs, at_once) for row in rows]


async def simulate_safely(simulator: Simulator, text: str, sequences: list[list[str]]) -> list[Simulation]:
    """What a simulator predicts; an error of its own is the result of each sequence."""
    await asyncio.sleep(0)  # an interruption takes effect between explanations
    try:
        return await simulator.simulate(text, sequences)
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [Simulation(None, None, f"{type(error).__name__}: {error}") for _ in sequences]


def _row(job: Job, simulator: Simulator, seq_id: int, split: str, result: Simulation) -> dict[str, Any]:
    return {
        **job.explanation,
        "simulator": simulator.name,
        "control": job.control,
        "source": job.source,
        "seq_id": seq_id,
        "split": split,
        "expected": result.expected,
        "coverage": result.coverage,
        "model": simulator.model,
        "prompt_id": simulator.prompt_id,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "status": "failed" if result.expected is None else "ok",
        "error": result.error or None,
    }


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that the simulator asks; `word` uses one without asking it."""
    simulate = config[Simulate]
    if simulate.engine is None or simulate.simulator == "word":
        return None
    return ModelUse(
        simulate.engine, f"simulator {simulate.simulator}", lambda found: require(found, simulate.simulator)
    )


def check(config: RunConfig) -> None:
    """Raises UserError where a model that simulates, or its device, is not there."""
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
    asks=model_use,
    estimate=Asking(replies_grow=True),
    method="simulation",
)
