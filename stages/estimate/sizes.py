"""How many sequences, units and bytes a run takes, from the run file and the configuration of its models alone."""

from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.model_facts import describe_model
from stages.estimate.recording import recording, state_bytes
from stages.settings import Explain, PerSplit, Record, Simulate

SEQUENCE_BYTES = 12
"""Bytes of a token in the corpus table before compression: its id, its text and offsets."""


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
    """Memory of the recorder, in each process beside the model and the activations of a batch."""
    module_bytes: int
    """What is kept of that module of which most is."""
    partial_bytes: int
    """Disk of the partial records until they are merged, compressed."""
    record_bytes: int
    """Disk of `units` and `exemplars`, compressed."""
    other_bytes: int
    """Disk of `corpus` and `simulations`, before compression."""


def estimate(config: RunConfig) -> Estimate:
    """The sizes of a run.

    Raises:
        UserError: the subject or one of its modules does not exist.
    """
    modules = describe_modules(config)
    widths = [units.width for units in modules.values()]
    sequences, length = config.corpus.max_sequences, config.corpus.seq_len
    vocab_size = describe_model(config.subject.model, config.subject.trust_remote_code).vocab_size
    explained = _explained(config, widths)
    simulations = explained * _simulations(config)
    recorded = recording(modules, config, vocab_size)
    return Estimate(
        sequences=sequences,
        tokens=sequences * length,
        units=sum(widths),
        explained=explained,
        forward_passes=-(-sequences // config[Record].batch_size),
        simulations=simulations,
        memory_bytes=recorded.memory,
        module_bytes=max(
            state_bytes(module, config[Record], recorded.covered, length, sequences) for module in modules.values()
        ),
        partial_bytes=recorded.partials,
        record_bytes=recorded.tables,
        other_bytes=sequences * length * SEQUENCE_BYTES + simulations * length * 8,
    )


def _explained(config: RunConfig, widths: list[int]) -> int:
    wanted = config[Explain].units
    if isinstance(wanted, dict):
        return sum(len(set(indices)) for indices in wanted.values())
    return sum(width if wanted == "all" else min(wanted, width) for width in widths)


def _simulations(config: RunConfig) -> int:
    """Sequences simulated for a unit: its candidates on both splits, controls and baselines on `report`."""
    kinds = (config[Record].top, config[Record].random)
    held_out = sum(_total(part, ("select", "report")) for part in kinds)
    on_report = sum(_total(part, ("report",)) for part in kinds)
    return config[Explain].candidates * held_out + (config[Simulate].controls + 3) * on_report


def _total(part: PerSplit, splits: tuple[str, ...] = ("explain", "select", "report")) -> int:
    return sum(getattr(part, split) for split in splits)
