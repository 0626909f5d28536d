"""The estimate as text."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple

from pipeline.commands.tables import format_table
from pipeline.config import RunConfig
from pipeline.cost import cost
from pipeline.execution.runner import Stages
from pipeline.llm.counting_engine import BLOCK, Usage
from stages.estimate.ngram_sizes import ngram_sizes
from stages.estimate.requests import Demand, demands
from stages.estimate.sizes import Estimate, estimate
from stages.settings import Record, Sasc

MANY_PARTIALS = 8
"""From this many times the disk of the final rows on, the estimate says how partial records can be fewer."""
COLUMNS = ["stage", "model", "calls", "prompt tokens", "computed", "reply tokens", "at most", "cost", "at most"]


def estimate_table(config: RunConfig, stages: Stages) -> str:
    """The sizes of a run; then calls, tokens and cost of each stage that sends prompts to a language model.

    Raises:
        UserError: a model or module that the run file names does not exist.
    """
    sizes, found = _sizes(config), demands(config, stages)
    if not found:
        return f"{sizes}\n\nThis run makes no requests to language models: its methods read their models in this process, at no cost."
    lines = [line for demand in found for line in _basis(demand)]
    lines += [
        f"Computed are those tokens that no earlier prompt began with, in blocks of {BLOCK}, as with a prefix cache.",
        "Reply tokens and cost are those of replies like the examples in the prompts, or like made-up ones where what is asked "
        "next depends on replies, and beside them the most that the token limits allow. Requests that have to be repeated come on "
        "top; replies that are kept are not asked for again.",
        *_budget(config, found),
    ]
    return "\n\n".join([sizes, _requests(found), "\n".join(lines)])


def _sizes(config: RunConfig) -> str:
    corpus = config.corpus.max_sequences
    rows = [("sequences", f"{corpus:,} at most"), ("tokens", f"{corpus * config.corpus.seq_len:,} at most")]
    if "simulation" not in config.run.methods:
        return format_table(["quantity", "estimate"], rows + _of_ngrams(config))
    found = estimate(config)
    rows += _of_recording(found) + (_of_ngrams(config) if "sasc" in config.run.methods else [])
    table = format_table(["quantity", "estimate"], rows)
    parts = -(-found.sequences // config[Record].shard_sequences)
    if parts > 1 and found.partial_bytes > MANY_PARTIALS * found.record_bytes:
        table += (
            f"\n\nThe corpus is scanned in {parts} parts, and each leaves a partial record of all units. Fewer take less disk: "
            f"raise record.shard_sequences = {config[Record].shard_sequences}, at best to one part for each process that scans."
        )
    return table


def _of_recording(found: Estimate) -> list[tuple[str, str]]:
    return [
        ("units recorded", f"{found.units:,}"),
        ("units explained", f"{found.explained:,}"),
        ("forward passes of the subject", f"{found.forward_passes:,}"),
        ("simulated sequences", f"{found.simulations:,}"),
        ("memory of the recorder, in each process", f"{found.memory_bytes / 2**20:,.0f} MiB"),
        ("of it for one module", f"{found.module_bytes / 2**20:,.0f} MiB"),
        ("disk of partial records, until they are merged", f"{found.partial_bytes / 2**20:,.0f} MiB"),
        ("disk of units and exemplars", f"{found.record_bytes / 2**20:,.0f} MiB"),
        ("disk of other tables, before compression", f"{found.other_bytes / 2**20:,.0f} MiB"),
    ]


def _of_ngrams(config: RunConfig) -> list[tuple[str, str]]:
    found = ngram_sizes(config)
    rows = [
        ("units explained by n-grams", f"{found.units:,}, with {config[Sasc].nulls:,} null units"),
        ("n-grams", f"{found.ngrams:,} at most"),
        ("n-grams evaluated by black boxes", f"{found.by_black_boxes:,} at most"),
        ("n-grams evaluated by the subject", f"{found.by_subject:,} at most"),
        ("forward passes for n-grams in context", f"{found.corpus_passes:,}"),
        ("texts for and against explanations", f"{found.texts:,} at most"),
    ]
    return [row for row in rows if not row[1].startswith("0")]


def _requests(found: Sequence[Demand]) -> str:
    rows = [
        [d.stage, d.engine.model, *_numbers(d.usage), *(_shown([d], most) for most in (False, True))] for d in found
    ]
    if len(found) > 1:
        total = sum((demand.usage for demand in found), Usage())
        rows.append(["all", None, *_numbers(total), *(_shown(found, most) for most in (False, True))])
    return format_table(COLUMNS, rows)


def _numbers(usage: Usage) -> list[str]:
    return [f"{number:,}" for number in astuple(usage)]


def _shown(found: Sequence[Demand], most: bool) -> str | None:
    """The cost of all endpoints together as text; one unknown price makes it unknown, and without endpoints there is none."""
    paid = [demand for demand in found if demand.engine.base_url is not None]
    if not paid:
        return None
    price = _cost(paid, most)
    return "unknown" if price is None else f"{price:,.4f}"


def _cost(paid: Sequence[Demand], most: bool) -> float | None:
    costs = [
        cost(d.engine, d.usage.prompt_tokens, d.usage.most_tokens if most else d.usage.likely_tokens) for d in paid
    ]
    known = [value for value in costs if value is not None]
    return sum(known) if len(known) == len(costs) else None


def _basis(demand: Demand) -> list[str]:
    """What the numbers of a stage rest on."""
    units = (
        f"{demand.units:,} units" if demand.rendered == demand.units else f"{demand.rendered} of {demand.units:,} units"
    )
    lines = [f"{demand.stage}: prompts of {units}, from {demand.inputs}, counted by {demand.tokenizer}."]
    if not demand.usage.calls:
        lines.append(
            f"{demand.stage}: nothing would be asked: no unit fires or responds, or no prompt fits the model's context."
        )
    if demand.most_replies > 1 and demand.engine.base_url is not None:
        lines.append(
            f"{demand.stage}: one request asks for {demand.most_replies} replies; an endpoint that gives one at a time "
            f"takes {demand.most_replies} times the calls and prompt tokens."
        )
    return lines


def _budget(config: RunConfig, found: Sequence[Demand]) -> Iterator[str]:
    """Whether the limits of the run file are enough."""
    paid = [demand for demand in found if demand.engine.base_url is not None]
    limits, total = config.budget, sum((demand.usage for demand in paid), Usage())
    if limits.max_tokens_total is not None:
        tokens = total.prompt_tokens + total.likely_tokens, total.prompt_tokens + total.most_tokens
        yield _verdict("max_tokens_total", f"{limits.max_tokens_total:,}", limits.max_tokens_total, *tokens)
    if limits.max_cost is not None:
        costs = (_cost(paid, most) or 0.0 for most in (False, True))
        yield _verdict("max_cost", f"{limits.max_cost:g}", limits.max_cost, *costs)


def _verdict(name: str, shown: str, limit: float, likely: float, most: float) -> str:
    words = (
        "is enough"
        if most <= limit
        else "is probably enough"
        if likely <= limit
        else "will stop the run before its end"
    )
    return f"budget.{name} = {shown} {words}, by these figures."
