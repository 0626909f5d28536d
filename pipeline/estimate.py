"""How much a run will take, from the run file and the configuration of its models alone."""

from dataclasses import dataclass

from pipeline.config import PerSplit, RunConfig
from pipeline.query import format_table
from pipeline.subjects.facts import check_modules, describe_model

SEQUENCE_BYTES = 12
"""Bytes of a token in the corpus table before compression: its id, its text and offsets."""

UNIT_BYTES = 2500
"""Memory of a unit's moments and histogram."""


@dataclass(frozen=True)
class Estimate:
    """Upper bounds; a corpus smaller than `max_sequences` takes less."""

    sequences: int
    tokens: int
    units: int
    explained: int
    forward_passes: int
    explain_calls: int
    simulations: int
    memory_bytes: int
    """Memory of the recorder beside the model."""
    disk_bytes: int
    """Tables before compression."""


def estimate(config: RunConfig) -> Estimate:
    """The sizes of a run.

    Raises:
        UserError: the subject or one of its modules does not exist.
    """
    facts = describe_model(config.subject.model, config.subject.trust_remote_code)
    check_modules(config.subject.model, config.subject.modules, config.subject.trust_remote_code)
    widths = [facts.widths[module] for module in config.subject.modules]
    record, sequences = config.record, config.corpus.max_sequences
    length = config.corpus.seq_len
    explained = _explained(config, widths)
    held_out = sum(_total(part, ("select", "report")) for part in (record.top, record.random))
    on_report = sum(_total(part, ("report",)) for part in (record.top, record.random))
    candidates = config.explain.candidates
    simulations = explained * (candidates * held_out + (config.simulate.controls + 3) * on_report)
    kept = _total(record.top) + _total(record.random) + _total(record.per_band) * (len(record.quantiles) + 1)
    listed = min(facts.vocab_size, sequences * length // 2 // record.min_token_count)  # half of it is `explain`
    sums = min(listed * sum(widths) * 8, record.token_memory_mb * 2**20)
    uniform = max(record.pool, 4 * record.random.select, 4 * record.random.report, 2 * record.random.explain)
    needs_model = config.explain.engine is not None
    return Estimate(
        sequences=sequences,
        tokens=sequences * length,
        units=sum(widths),
        explained=explained,
        forward_passes=-(-sequences // record.batch_size),
        explain_calls=explained * (candidates if config.explain.explainer == "token_activation" else 1) * needs_model,
        simulations=simulations,
        memory_bytes=sum(widths) * ((_total(record.top) + uniform) * length * 4 + UNIT_BYTES) + sums,
        disk_bytes=sequences * length * SEQUENCE_BYTES + sum(widths) * kept * length * 4 + simulations * length * 8,
    )


def estimate_table(config: RunConfig) -> str:
    """The estimate as text, the largest numbers with separators."""
    found = estimate(config)
    rows = [
        ("sequences", f"{found.sequences:,} at most"),
        ("tokens", f"{found.tokens:,} at most"),
        ("units recorded", f"{found.units:,}"),
        ("units explained", f"{found.explained:,}"),
        ("forward passes of the subject", f"{found.forward_passes:,}"),
        ("calls of the explaining model", f"{found.explain_calls:,}"),
        ("simulated sequences", f"{found.simulations:,}"),
        ("memory of the recorder", f"{found.memory_bytes / 2**20:,.0f} MiB"),
        ("disk, before compression", f"{found.disk_bytes / 2**20:,.0f} MiB"),
    ]
    return format_table(["quantity", "estimate"], rows)


def _explained(config: RunConfig, widths: list[int]) -> int:
    wanted = config.explain.units
    if isinstance(wanted, dict):
        return sum(len(set(indices)) for indices in wanted.values())
    return sum(width if wanted == "all" else min(wanted, width) for width in widths)


def _total(part: PerSplit, splits: tuple[str, ...] = ("explain", "select", "report")) -> int:
    return sum(getattr(part, split) for split in splits)
