"""The simulate stage: explanations to expected activations on sequences that the explainer has not seen.

Beside every explanation the controls are simulated on the same report sequences: explanations of other units of the
module (`shuffled`), the bare top token (`top_token`), a sentence that suits every unit (`constant`), and the token
lookup table (`lookup`). Only tokens and a text ever reach a simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig, Simulate
from pipeline.context import Context
from pipeline.errors import stops_the_shard
from pipeline.evidence import TopToken
from pipeline.prompts import digests
from pipeline.schemas import EXPLANATIONS, SIMULATIONS
from pipeline.stage import Shard, Stage
from pipeline.subjects.spec import resolve_model
from stages.explain.stage import check_engine, engine_settings, load_engine_model
from stages.explain.units import draw, unit_shards
from stages.simulate.base import Simulation, Simulator
from stages.simulate.lookup import LookupSimulator, render_table

CONSTANT = "ordinary English text"
_PROMPTS = {"word": "simulate/word_list", "all_at_once": "simulate/all_at_once"}


@dataclass(frozen=True)
class Job:
    """One text to simulate on some sequences of one unit."""

    explanation: Mapping[str, Any]
    """Keys of the row: module, index, polarity, explainer, candidate."""
    control: str
    source: int
    text: str
    splits: tuple[str, ...]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a simulation."""
    word = config.simulate.simulator == "word"
    return {
        "seed": config.run.seed,
        "simulate": config.simulate.model_dump(exclude={"shard_units", "engine", "embedder"}),
        "engine": engine_settings(config.simulate.engine),
        "embedder": resolve_model(config.simulate.embedder).revision if word else None,
        "prompts": digests(_PROMPTS[config.simulate.simulator]) if config.simulate.engine else {},
    }


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Simulate the explanations and the controls of the units of one shard."""
    module, indices = shard.key["module"], shard.key["indices"]
    simulator = context.once("simulator", lambda config: load_simulator(config.simulate))
    explanations = context.tables.read(
        EXPLANATIONS, (ds.field("module") == module) & (ds.field("status") == "ok")
    ).to_pylist()
    sequences = context.sequences(module, indices, ("select", "report"))
    tokens = context.tokens([seq_id for pairs in sequences.values() for seq_id, _ in pairs])
    top_tokens = context.top_tokens(module, indices)
    rows = []
    for index in indices:
        own = [row for row in explanations if row["index"] == index]
        others = [row for row in explanations if row["index"] != index and row["candidate"] == 0]
        order = draw(context.config.run.seed, f"controls/{module}/{index}").permutation(len(others))
        shuffled = [others[i] for i in order[: context.config.simulate.controls]]
        jobs = unit_jobs(own, shuffled, top_tokens[index])
        rows += simulate_unit(jobs, sequences[index], tokens, simulator)
    return {SIMULATIONS.name: pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)}


def unit_jobs(own: list[dict[str, Any]], shuffled: list[dict[str, Any]], top_tokens: list[TopToken]) -> list[Job]:
    """What is simulated for one unit: its candidates, then the controls on the report sequences."""
    if not own:
        return []
    keys = {name: own[0][name] for name in ("module", "index", "polarity", "explainer")} | {"candidate": None}
    index = own[0]["index"]
    jobs = [Job(keys | {"candidate": row["candidate"]}, "", index, row["text"], ("select", "report")) for row in own]
    jobs += [Job(keys, "shuffled", row["index"], row["text"], ("report",)) for row in shuffled]
    jobs.append(Job(keys, "constant", index, CONSTANT, ("report",)))
    words = [token for top in top_tokens if (token := top.token.strip()) and '"' not in token]
    if words:
        jobs.append(Job(keys, "top_token", index, f'the token "{words[0]}"', ("report",)))
    if top_tokens:
        jobs.append(Job(keys, "lookup", index, render_table(top_tokens), ("report",)))
    return jobs


def simulate_unit(
    jobs: list[Job], sequences: list[tuple[int, str]], tokens: Mapping[int, list[str]], simulator: Simulator
) -> list[dict[str, Any]]:
    """Rows of the simulations table for one unit."""
    rows = []
    for job in jobs:
        shown = [(seq_id, split) for seq_id, split in sequences if split in job.splits]
        engine = LookupSimulator() if job.control == "lookup" else simulator
        results = simulate_safely(engine, job.text, [tokens[seq_id] for seq_id, _ in shown])
        for (seq_id, split), result in zip(shown, results, strict=True):
            rows.append(_row(job, engine.name, seq_id, split, result))
    return rows


def simulate_safely(simulator: Simulator, text: str, sequences: list[list[str]]) -> list[Simulation]:
    """What a simulator predicts; an error of its own is the result of each sequence."""
    try:
        return simulator.simulate(text, sequences)
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [Simulation(None, None, f"{type(error).__name__}: {error}") for _ in sequences]


def _row(job: Job, simulator: str, seq_id: int, split: str, result: Simulation) -> dict[str, Any]:
    return {
        **job.explanation,
        "simulator": simulator,
        "control": job.control,
        "source": job.source,
        "seq_id": seq_id,
        "split": split,
        "expected": result.expected,
        "coverage": result.coverage,
        "status": "failed" if result.expected is None else "ok",
        "error": result.error or None,
    }


def load_simulator(config: Simulate) -> Simulator:
    """The simulator that the settings name."""
    model = None if config.engine is None else load_engine_model(config.engine)
    if config.simulator == "word":
        from pipeline.subjects.embedder import load_embedder
        from stages.simulate.word import WordSimulator

        return WordSimulator(load_embedder(config.embedder), model)
    from pipeline.llm.in_process import InProcessEngine
    from stages.simulate.all_at_once import AllAtOnceSimulator

    assert model is not None
    return AllAtOnceSimulator(InProcessEngine(model))


def check(config: RunConfig) -> None:
    """Raises UserError where a model that simulates, or its device, is not there."""
    settings(config)
    check_engine(config.simulate.engine)


SIMULATE = Stage(
    name="simulate",
    title="simulate activations",
    reads=("explain", "record.merge", "corpus"),
    writes=(SIMULATIONS,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config.simulate.shard_units),
    process=process,
    splits=("select", "report"),
    check=check,
)
