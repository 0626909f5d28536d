"""Looks at the endpoints of a run file: what each really does for its model, and whether that is what the run needs."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.tables import format_table
from pipeline.config import Budget, LanguageModel, RunConfig
from pipeline.errors import UserError
from pipeline.execution.runner import Stages
from pipeline.execution.stage import ModelUse
from pipeline.llm.endpoint import open_endpoint
from pipeline.llm.endpoint.capabilities import EndpointCapabilities
from pipeline.llm.endpoint.client import listed_models
from pipeline.llm.endpoint.secrets import Secrets

WORKER = "doctor"
"""Keeps its replies apart from those of workers that may be at work."""

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Finding:
    """One language model of a run file."""

    lines: Lines
    well: bool


def examine(config: RunConfig, stages: Stages) -> tuple[str, bool]:
    """Tables of what was found, one for each stage that asks a language model, and whether all needs are met.

    Endpoints are asked anew, by a few small requests each; what they do is kept for the run.
    """
    folder = config.root / "_replies"
    parts, well = [], True
    for use in [use for stage in stages.values() if stage.takes_part(config) and (use := stage.asks(config))]:
        found = _visited(use, folder, config.budget)
        well = well and found.well
        parts.append(format_table([use.method, "found"], found.lines))
    if not parts:
        return "This run asks no language model. All needs are met.", True
    return "\n\n".join([*parts, "All needs are met." if well else "Not all needs are met."]), well


def _visited(use: ModelUse, folder: Path, budget: Budget) -> Finding:
    engine = use.model
    if engine.base_url is None:
        return Finding([("model", engine.model), ("place", "in this process; every method works with it")], True)
    lines: Lines = [("model", engine.model)]
    try:
        lines.append(("endpoint", Secrets.of(engine).endpoint))
        can, context, exact = asyncio.run(_visit(engine, folder, budget))
    except UserError as error:
        return Finding([*lines, ("answers", f"no: {error}")], False)
    lines += [("answers", "yes"), *_capabilities(can, context, exact)]
    try:
        use.check(can.of_engine())
        if can.other_models:
            raise UserError(f"engine.model = {engine.model!r} is not among its models{listed_models(can.other_models)}")
    except UserError as error:
        return Finding([*lines, ("well", f"no: {error}")], False)
    return Finding([*lines, ("well", "yes")], True)


async def _visit(engine: LanguageModel, folder: Path, budget: Budget) -> tuple[EndpointCapabilities, int | None, bool]:
    """What the probe finds now, the context, and whether tokens are counted exactly."""
    opened = open_endpoint(engine.model_copy(update={"mode": "live"}), folder, WORKER, budget)
    try:
        return await opened.probed(anew=True), opened.context, opened.counts_exactly
    finally:
        await opened.aclose()


def _capabilities(can: EndpointCapabilities, context: int | None, exact: bool) -> Iterator[tuple[str, str]]:
    """The probe's findings in words."""
    yield "requests", "chat" if can.chat else "plain completions"
    yield "context", f"{context:,} tokens" if context else "unknown"
    yield "tokenizer", "yes" if exact else "none, so that tokens are estimated; engine.tokenizer names one"
    yield "alternatives in replies", str(can.logprobs) if can.logprobs else "no"
    if can.reading.way:
        yield "alternatives in prompts", f"{can.reading.listed} by {can.reading.way}"
    else:
        yield "alternatives in prompts", "no" if exact else "not asked for without a tokenizer"
    for name, works in (
        ("JSON schema", can.json_schema),
        ("several replies (n)", can.n),
        ("seed", can.seed),
    ):
        yield name, "yes" if works else "no"
    refused = [name for name, taken in (("temperature", can.temperature), ("stop", can.stop)) if not taken]
    yield "refused fields", ", ".join(refused) or "none"
