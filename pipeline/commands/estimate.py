"""How much a run will take, before it is run, as text: the sizes of its stages, then what they ask of language models."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple

from pipeline.commands.demands import Demand, Stages, demands
from pipeline.commands.query import format_table
from pipeline.config import RunConfig
from pipeline.llm.counting_engine import BLOCK, Usage

COLUMNS = ["stage", "model", "calls", "prompt tokens", "computed", "reply tokens", "at most", "cost", "at most"]
KEY = (
    f"Computed are those tokens that no earlier prompt began with, in blocks of {BLOCK}, as with a prefix cache.",
    "Reply tokens and cost are those of replies like the examples in the prompts, or like made-up ones where what is asked next "
    "depends on replies; beside them stands the most that the token limits allow. Requests that have to be repeated come on top. "
    "Replies that are kept are not asked for again.",
)


def estimate_table(config: RunConfig, stages: Stages) -> str:
    """The sizes of a run; then calls, tokens and cost of each stage that sends prompts to a language model.

    Raises:
        UserError: a model or module that the run file names does not exist.
    """
    sizes = [
        row for stage in stages.values() if stage.takes_part(config) for row in stage.estimate.sizes(config).items()
    ]
    parts, found = [format_table(["quantity", "estimate"], sizes)], demands(config, stages)
    if not found:
        words = (
            "This run makes no requests to language models: its methods read their models in this process, at no cost."
        )
        return "\n\n".join([*parts, words])
    basis = [line for demand in found for line in _basis(demand)]
    return "\n\n".join([*parts, _requests(found), "\n".join([*basis, *KEY, *_budget(config, found)])])


def _requests(found: Sequence[Demand]) -> str:
    rows = [[d.stage, d.engine.model, *_numbers(d.usage), _cost([d], False), _cost([d], True)] for d in found]
    if len(found) > 1:
        total = sum((demand.usage for demand in found), Usage())
        rows.append(["all", None, *_numbers(total), _cost(found, False), _cost(found, True)])
    return format_table(COLUMNS, rows)


def _numbers(usage: Usage) -> list[str]:
    return [f"{number:,}" for number in astuple(usage)]


def _cost(found: Sequence[Demand], most: bool) -> str | None:
    """The cost at all endpoints together, as text: unknown if one price is; None without endpoints."""
    costs = _costs(found, most)
    if not costs:
        return None
    return "unknown" if None in costs else f"{sum(filter(None, costs)):,.4f}"


def _costs(found: Sequence[Demand], most: bool) -> list[float | None]:
    """The cost at each endpoint."""
    usages = [(demand.engine, demand.usage) for demand in found if demand.engine.base_url is not None]
    return [
        engine.cost(usage.prompt_tokens, usage.most_tokens if most else usage.likely_tokens) for engine, usage in usages
    ]


def _basis(demand: Demand) -> Iterator[str]:
    """What the numbers of a stage rest on."""
    units = f"{demand.units:,} units"
    if demand.rendered != demand.units:
        units = f"{demand.rendered} of {units}"
    inputs = f"made-up rows of {', '.join(demand.made_up)}" if demand.made_up else "the tables of the run"
    yield f"{demand.stage}: prompts of {units}, from {inputs}, counted by {demand.tokenizer}."
    if not demand.usage.calls:
        yield f"{demand.stage}: nothing would be asked: no unit fires or responds, or no prompt fits the model's context."
    if demand.most_replies > 1 and demand.engine.base_url is not None:
        yield (
            f"{demand.stage}: one request asks for {demand.most_replies} replies; an endpoint that gives one at a time "
            f"takes {demand.most_replies} times the calls and prompt tokens."
        )


def _budget(config: RunConfig, found: Sequence[Demand]) -> Iterator[str]:
    """Whether the limits of the run file are enough."""
    limits = config.budget
    total = sum((demand.usage for demand in found if demand.engine.base_url is not None), Usage())
    if limits.max_tokens_total is not None:
        tokens = total.prompt_tokens + total.likely_tokens, total.prompt_tokens + total.most_tokens
        yield _verdict("max_tokens_total", f"{limits.max_tokens_total:,}", limits.max_tokens_total, *tokens)
    if limits.max_cost is not None:
        costs = (sum(filter(None, _costs(found, most))) for most in (False, True))
        yield _verdict("max_cost", f"{limits.max_cost:g}", limits.max_cost, *costs)


def _verdict(name: str, shown: str, limit: float, likely: float, most: float) -> str:
    words = "will stop the run before its end" if likely > limit else "is probably enough"
    return f"budget.{name} = {shown} {'is enough' if most <= limit else words}, by these figures."
