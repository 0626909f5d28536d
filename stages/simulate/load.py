"""The simulator that a run file names."""

from typing import TYPE_CHECKING

from pipeline.config import LanguageModel
from pipeline.execution.context import Context
from pipeline.llm.load import load_engine, load_engine_model
from stages.settings import Simulate
from stages.simulate.base import Simulator
from stages.simulate.needs import require

if TYPE_CHECKING:
    from pipeline.llm.engine import Engine


async def open_simulator(context: Context) -> Simulator:
    """The simulator that the run file names, made once.

    Raises:
        UserError: its engine lacks an ability that the method needs.
    """
    simulate = context.config[Simulate]
    if simulate.simulator == "word":
        return context.once("simulator", lambda _: word_simulator(simulate.embedder, simulate.engine))
    engine = context.once("engine", lambda _: load_engine(simulate.engine, context))
    require(await engine.capabilities(), simulate.simulator)
    return context.once("simulator", lambda _: load_simulator(simulate, engine))


def word_simulator(embedder: str, engine: LanguageModel | None) -> Simulator:
    """The word simulator; `engine` is a model in this process, or None."""
    from pipeline.subjects.embedder import load_embedder
    from stages.simulate.word.word_simulator import WordSimulator

    return WordSimulator(load_embedder(embedder), None if engine is None else load_engine_model(engine))


def load_simulator(simulate: Simulate, engine: "Engine") -> Simulator:
    """The simulator that asks a language model by the named method."""
    if simulate.simulator == "all_at_once":
        from stages.simulate.all_at_once import PACKED_AT_MOST, AllAtOnceSimulator

        behind_endpoint = simulate.engine is not None and simulate.engine.base_url
        return AllAtOnceSimulator(engine, min(simulate.pack, PACKED_AT_MOST) if behind_endpoint else 1)
    if simulate.simulator == "generated":
        from stages.simulate.generated import GeneratedSimulator

        return GeneratedSimulator(engine, simulate.pack)
    if simulate.simulator == "json":
        from stages.simulate.json_list import JsonSimulator

        return JsonSimulator(engine, simulate.pack)
    from stages.simulate.one_at_a_time import OneAtATimeSimulator

    return OneAtATimeSimulator(engine)
