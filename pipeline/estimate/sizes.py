"""How many sequences, units and bytes a run takes, from the run file and the configuration of its models alone."""

from dataclasses import dataclass

from pipeline.config import PerSplit, RunConfig
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
    subject = config.subject
    found = check_modules(subject.model, subject.modules, subject.trust_remote_code, subject)
    widths = [units.width for units in found.values()]
    record, sequences = config.record, config.corpus.max_sequences
    length = config.corpus.seq_len
    explained = _explained(config, widths)
    simulations = explained * _simulations(config)
    bands = len(record.quantiles) + 1
    kept = _total(record.top) + _total(record.random) + _total(record.per_band) * bands
    listed = min(facts.vocab_size, sequences * length // 2 // record.min_token_count)  # half of it is `explain`
    sums = min(listed * sum(widths) * 8, record.token_memory_mb * 2**20)
    uniform = max(record.pool, 4 * record.random.select, 4 * record.random.report, 2 * record.random.explain)
    return Estimate(
        sequences=sequences,
        tokens=sequences * length,
        units=sum(widths),
        explained=explained,
        forward_passes=-(-sequences // record.batch_size),
        simulations=simulations,
        memory_bytes=sum(widths) * ((_total(record.top) + uniform) * length * 4 + UNIT_BYTES) + sums,
        disk_bytes=sequences * length * SEQUENCE_BYTES + sum(widths) * kept * length * 4 + simulations * length * 8,
    )


def _explained(config: RunConfig, widths: list[int]) -> int:
    wanted = config.explain.units
    if isinstance(wanted, dict):
        return sum(len(set(indices)) for indices in wanted.values())
    return sum(width if wanted == "all" else min(wanted, width) for width in widths)


def _simulations(config: RunConfig) -> int:
    """Sequences simulated for a unit: its candidates on both splits, controls and baselines on `report`."""
    kinds = (config.record.top, config.record.random)
    held_out = sum(_total(part, ("select", "report")) for part in kinds)
    on_report = sum(_total(part, ("report",)) for part in kinds)
    return config.explain.candidates * held_out + (config.simulate.controls + 3) * on_report


def _total(part: PerSplit, splits: tuple[str, ...] = ("explain", "select", "report")) -> int:
    return sum(getattr(part, split) for split in splits)
