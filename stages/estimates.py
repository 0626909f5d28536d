"""What estimates need of the stages from the corpus to the judge: sizes, and rows that stand in for tables not there yet.

Stand-ins make prompts of about the right length. Their texts and explanations are those of the few-shot examples of prompts;
activations are drawn at random.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.execution.stage import Unit
from pipeline.prompts import Prompt
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, NEGATIVES, UNITS, TableSchema
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import listed_units
from stages.evidence import SPLITS, split_of
from stages.few_shot import few_shot_neurons
from stages.settings import Explain, Record, Simulate
from stages.units import unit_shards

FIRING = 0.15
"""Share of the tokens that fire in a made-up exemplar, where prompts with a rule for sparse ones are at their longest."""
SEQUENCES = 1024
"""Sequences of the corpus that made-up rows are about, the first ones."""
FEW_SHOT = Prompt("explain/token_activation.v1")
TOKEN_BYTES = 12
"""Disk of a token in `corpus` before compression: its id, its text and offsets."""
EVERY = 1 << 30
"""Units of a shard that has all of a module."""


def corpus_sizes(config: RunConfig) -> dict[str, str]:
    """Sequences and tokens at most; a small corpus has fewer."""
    tokens = config.corpus.max_sequences * config.corpus.seq_len
    return {
        "sequences": f"{config.corpus.max_sequences:,} at most",
        "tokens": f"{tokens:,} at most",
        "disk of the corpus, before compression": f"{tokens * TOKEN_BYTES / 2**20:,.0f} MiB",
    }


def explain_sizes(config: RunConfig) -> dict[str, str]:
    """Units, of whichever polarity."""
    return {"units explained": f"{_explained_units(config):,}"}


def simulate_sizes(config: RunConfig) -> dict[str, str]:
    """Each candidate of a unit on both splits, and as many of each control where there is a choice; opposites and baselines on `report`."""
    record, report, candidates = config[Record], config[Record].top.report, config[Explain].candidates
    report += record.random.report
    held_out = report + record.top.select + record.random.select
    control = candidates * held_out if candidates > 1 else report
    each = candidates * held_out + config[Simulate].controls * control + (candidates + 3) * report
    simulated = _explained_units(config) * each
    return {
        "simulated sequences": f"{simulated:,}",
        "disk of simulations, before compression": f"{simulated * config.corpus.seq_len * 8 / 2**20:,.0f} MiB",
    }


def _explained_units(config: RunConfig) -> int:
    from pipeline.subjects.activation_sources import describe_modules

    explain = config[Explain]
    if isinstance(explain.units, dict):
        return sum(map(len, listed_units(config, explain.units, "explain.units").values()))
    widths = [units.width for units in describe_modules(config).values()]
    return sum(width if explain.drawn is None else min(explain.drawn.number, width) for width in widths)


def made_up_corpus(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:  # noqa: ARG001 - the contract
    """Sequences of the corpus' length."""
    neurons = few_shot_neurons(FEW_SHOT)
    words = [token for neuron in neurons for record in neuron.records for token in record.tokens]
    starts = [7 * number % len(words) for number in range(min(SEQUENCES, config.corpus.max_sequences))]
    tokens = [list(islice(cycle(words), start, start + config.corpus.seq_len)) for start in starts]
    return {CORPUS.name: filled(CORPUS, {"seq_id": range(len(tokens)), "tokens": tokens})}


def made_up_record(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """All units that there are; of the units given, exemplars with made-up activations, and top tokens."""
    from pipeline.subjects.activation_sources import describe_modules

    texts = corpus_texts(tables) if units else {}
    generator = np.random.default_rng(config.run.seed)
    exemplars: list[dict[str, Any]] = []
    for module, polarity, index in units:
        for band, split, seq_id in _kept(config, list(texts), generator):
            values = generator.exponential(size=len(texts[seq_id])) * (generator.random(len(texts[seq_id])) < FIRING)
            values[-1] = 10.0 if band == "top" else 1.0
            values = values if polarity == "+" else -values
            exemplars.append(
                {"module": module, "index": index, "polarity": polarity, "band": band, "rank": len(exemplars), "seq_id": seq_id,
                 "peak": len(values) - 1, "max_activation": values[-1], "activations": values, "split": split}
            )  # fmt: skip
    modules = describe_modules(config)
    listed = [(module, index) for module in modules for index in range(modules[module].width)]
    distinct = list(dict.fromkeys(token for tokens in texts.values() for token in tokens))[: config[Record].top_tokens]
    top = [{"token_id": 0, "token": token, "mean_activation": 1.0, "count": 3} for token in distinct]
    given = {(module, index) for module, _, index in units}
    found: dict[str, list[Any]] = {
        "module": [module for module, _ in listed],
        "index": [index for _, index in listed],
        "min": [-1.0 if modules[module].signed else 0.0 for module, _ in listed],
        "top_tokens": [top if unit in given else None for unit in listed],
    }
    found["bottom_tokens"] = found["top_tokens"]
    return {UNITS.name: filled(UNITS, found), EXEMPLARS.name: EXEMPLARS.of_rows(exemplars)}


def made_up_negatives(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """As many hard negatives of the explain split as are asked for."""
    texts = corpus_texts(tables) if units and config[Record].negatives else {}
    known = [seq_id for seq_id in texts if split_of(seq_id) == "explain"][: config[Record].negatives]
    rows = [
        {"module": module, "index": index, "polarity": polarity, "band": ("similar", "neighbour")[rank % 2], "rank": rank,
         "seq_id": seq_id, "peak": 0, "max_activation": 0.0, "activations": [0.0] * len(texts[seq_id]), "split": "explain"}
        for module, polarity, index in units for rank, seq_id in enumerate(known)
    ]  # fmt: skip
    return {NEGATIVES.name: NEGATIVES.of_rows(rows)}


def made_up_explanations(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """Every candidate of those of the units that fire, and as many of others to serve as controls."""
    candidates, controls = config[Explain].candidates, config[Simulate].controls
    return {EXPLANATIONS.name: with_texts(config, tables, units, candidates, controls, EXPLANATIONS)}


def filled(table: TableSchema, columns: Mapping[str, Any]) -> pa.Table:
    """A table with some columns; the others are null."""
    rows = len(next(iter(columns.values())))
    values = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in table.schema
    ]
    return pa.table(values, schema=table.schema)


def corpus_texts(tables: Tables) -> dict[int, list[str]]:
    """Tokens of the first sequences of the corpus, by seq_id."""
    rows = tables.read(CORPUS, pc.field("seq_id") < SEQUENCES, ["seq_id", "tokens"]).sort_by("seq_id")
    return dict(zip(rows["seq_id"].to_pylist(), rows["tokens"].to_pylist(), strict=True))


def _kept(config: RunConfig, seq_ids: Sequence[int], generator: np.random.Generator) -> list[tuple[str, str, int]]:
    """(band, split, seq_id) of the sequences that a unit keeps, as many as the run file asks for; none twice.

    The `random` ones are the same for every unit, as in a recording, so that prompts share as much.
    """
    record, found = config[Record], []
    for split in SPLITS:
        own, random = [seq_id for seq_id in seq_ids if split_of(seq_id) == split], getattr(record.random, split)
        quantile = getattr(record.per_band, split) * (len(record.quantiles) + 1)
        bands = ["random"] * random + ["top"] * getattr(record.top, split) + ["quantile"] * quantile
        drawn = [*own[:random], *generator.permutation(own[random:]).tolist()]
        found += [(band, split, seq_id) for band, seq_id in zip(bands, drawn, strict=False)]
    return found


def with_texts(
    config: RunConfig, tables: Tables, units: Sequence[Unit], candidates: int, controls: int, table: TableSchema
) -> pa.Table:
    """Rows with invented explanations: `candidates` of each unit that fires, and of each of `controls` others a module."""
    wanted: dict[Unit, int] = {}
    for (module, polarity), group in groupby(sorted(units), key=lambda unit: unit[:2]):
        indices, value = [index for *_, index in group], pc.field("max_activation")
        fires = (value > 0) if polarity == "+" else (value < 0)
        where = tables.is_unit(module, indices, polarity) & (pc.field("split") == "explain") & fires
        live = tables.read(EXEMPLARS, where, ["index"])["index"].unique().to_pylist()
        wanted |= dict.fromkeys(((module, polarity, index) for index in live), candidates)
    for shard in unit_shards(config, tables, EVERY) if units else ():
        module, polarity = shard.key["module"], shard.key["polarity"]
        others = ((module, polarity, index) for index in shard.key["indices"])
        wanted |= dict.fromkeys(islice((unit for unit in others if unit not in units), controls), candidates)
    texts = cycle(neuron.explanation for neuron in few_shot_neurons(FEW_SHOT))
    simulated = {"simulator": config[Simulate].name} if "simulator" in table.schema.names else {}
    rows = [
        {"module": module, "index": index, "polarity": polarity, "explainer": config[Explain].name, **simulated,
         "candidate": number, "text": next(texts), "status": "ok"}
        for (module, polarity, index), count in wanted.items() for number in range(count)
    ]  # fmt: skip
    return table.of_rows(rows)
