"""Looks at the endpoints of a run file: what each really does for its model, and whether that is what the run needs."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.commands.demands import Example, demands
from pipeline.commands.query import format_table
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import ModelUse
from pipeline.execution.survey import Stages
from pipeline.llm.endpoint.client import listed_models
from pipeline.llm.endpoint.completions import EndpointCapabilities
from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
from pipeline.llm.endpoint.faults import Secrets
from pipeline.llm.engine import EngineError, Request
from pipeline.llm.load import open_endpoint
from pipeline.terminal_text import safe

WORKER = "doctor"
"""Keeps its replies apart from those of workers that may be at work."""
PATIENCE = 0.001
"""Seconds for which an endpoint that is out of order is waited for: it is to be told, not waited for."""
SHOWN = 1_200
"""Characters of the end of a prompt that are shown at most."""


@dataclass
class Visit:
    """What was found of one language model."""

    lines: list[tuple[str, str]]
    tried: str = ""
    """A real prompt and its reply."""
    well: bool = False


def examine(config: RunConfig, stages: Stages) -> tuple[str, bool]:
    """What was found for each stage that asks a language model, and whether all needs are met.

    Endpoints are asked anew, by a few small requests each and by one prompt of the stage, whose reply is shown. What they do
    is kept for the run.
    """
    asking = {
        words: use
        for stage in stages.values()
        for words, narrowed in stage.by_methods(config).items()
        if (use := stage.asks(narrowed))
    }
    if not asking:
        return "This run asks no language model. All needs are met.", True
    examples = _examples(config, stages) if any(use.model.base_url for use in asking.values()) else {}
    parts, well = [], True
    for name, use in asking.items():
        visit = asyncio.run(_visit(use, config, examples.get(name)))
        parts += [format_table([use.method, "found"], visit.lines), *filter(None, [visit.tried])]
        well = well and visit.well
    return "\n\n".join([*parts, "All needs are met." if well else "Not all needs are met."]), well


def _examples(config: RunConfig, stages: Stages) -> dict[str, Example]:
    """One thing that each stage asks; none where the run file names a model that does not exist."""
    try:
        return {demand.stage: demand.example for demand in demands(config, stages, 1)}
    except UserError:
        return {}


async def _visit(use: ModelUse, config: RunConfig, example: Example) -> Visit:
    model = use.model
    if model.base_url is None:
        place = ("place", "in this process; every method works with it")
        return Visit([("model", model.model), place], well=True)
    visit, last = Visit([("model", model.model)]), "answers"
    engine = None
    try:
        visit.lines.append(("endpoint", Secrets.of(model).endpoint))
        live = model.model_copy(update={"mode": "live", "patience": PATIENCE})
        engine = open_endpoint(live, config.root / "_replies", WORKER, config.budget)
        can = await engine.capabilities(anew=True)
        visit.lines += [("answers", "yes"), *_capabilities(can, engine)]
        last = "well"
        use.check(can)
        if can.other_models:
            raise UserError(f"engine.model = {model.model!r} is unknown{listed_models(can.other_models)}")
        visit.tried = await _tried(engine, example)
        visit.well = True
    except (UserError, EngineError) as error:
        visit.lines.append((last, f"no: {error}"))
    else:
        visit.lines.append((last, "yes"))
    finally:
        if engine is not None:
            await engine.aclose()
    return visit


async def _tried(engine: EndpointEngine, example: Example) -> str:
    """A prompt of a stage and the reply to it, as text."""
    if example is None:
        return ""
    if isinstance(example, Request):
        (reply,) = await engine.complete(replace(example, n=1, attempt=int(time.time())))
        prompt, size, said = example.messages[-1].content, f" of {reply.prompt_tokens:,} tokens", reply.text
        if not reply.finished:
            said += f" [cut off by its limit of {example.max_tokens} tokens]"
    else:
        (scores,) = await engine.score([example])
        if scores.probabilities is None or scores.coverage is None:
            raise EngineError(f"a prompt of the stage: {scores.error}")
        prompt, size = "".join([example.messages[-1].content, *example.reply]), ""
        likeliest = " ".join(map(str, scores.probabilities.argmax(axis=1)))
        said = (
            f"{likeliest} (the likeliest number at each slot; numbers have {scores.coverage.mean():.0%} of the chances)"
        )
    return f"A prompt{size} ends with:\n{_indented(prompt[-SHOWN:])}\nand the reply is:\n{_indented(said)}"


def _indented(text: str) -> str:
    return "\n".join(f"    {safe(line)}" for line in text.strip().splitlines())


def _capabilities(can: EndpointCapabilities, engine: EndpointEngine) -> Iterator[tuple[str, str]]:
    """The probe's findings in words."""
    exact = engine.counts_exactly
    yield "requests", "chat" if can.chat else "plain completions"
    yield "context", f"{engine.context:,} tokens" if engine.context else "unknown"
    yield "tokenizer", "yes" if exact else "none, so that tokens are estimated; engine.tokenizer names one"
    yield "alternatives in replies", str(can.logprobs) if can.logprobs else "no"
    if can.reading.way:
        yield "alternatives in prompts", f"{can.reading.listed} by {can.reading.way}"
    else:
        yield "alternatives in prompts", "no" if exact else "not asked for without a tokenizer"
    for name, works in (("JSON schema", can.json_schema), ("several replies (n)", can.n), ("seed", can.seed)):
        yield name, "yes" if works else "no"
    refused = [name for name, taken in (("temperature", can.temperature), ("stop", can.stop)) if not taken]
    yield "refused fields", ", ".join(refused) or "none"
