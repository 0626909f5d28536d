"""What the stages read of a sample of units: as recorded, and stand-ins for what is not there yet.

Stand-ins have the sizes that the run file asks for, so prompts made of them are about as long as the real ones.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import cycle, islice
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.prompts import Prompt
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, NEGATIVES, UNITS
from pipeline.storage.tables import Tables
from stages.estimate.sample import SampleTables, Unit, filled
from stages.evidence import SPLITS, split_of
from stages.few_shot import few_shot_neurons
from stages.score.score_units import SCORES
from stages.settings import Explain, Judge, Record, Simulate

FIRING = 0.15
"""Share of the tokens that fire in a made-up exemplar, where prompts with a rule for sparse ones are at their longest."""
_FEW_SHOT = Prompt("explain/token_activation.v1")  # its invented texts and explanations serve as stand-ins


def all_units(widths: dict[str, int]) -> pa.Table:
    """A units table that says which units there are and nothing else."""
    modules = np.repeat(list(widths), list(widths.values()))
    indices = np.concatenate([np.arange(width) for width in widths.values()])
    return filled(UNITS, {"module": pa.array(modules), "index": pa.array(indices, pa.int32())})


def keep_recorded(tables: SampleTables, sample: Sequence[Unit]) -> None:
    """Hold in memory what was recorded of the sample, so that it is read from disk once."""
    kept = {table.name: Tables(tables.root).read(table, _any_of(tables, sample)) for table in (EXEMPLARS, NEGATIVES)}
    wanted = {seq_id for rows in kept.values() for seq_id in rows["seq_id"].unique().to_pylist()}
    tables.replaced |= kept
    tables.replaced[CORPUS.name] = Tables(tables.root).read(CORPUS, ds.field("seq_id").isin(sorted(wanted)))


def make_corpus(config: RunConfig) -> pa.Table:
    """Sequences of the corpus' length, put together from the invented texts of prompts; as many as a unit can need."""
    words = [token for neuron in few_shot_neurons(_FEW_SHOT) for record in neuron.records for token in record.tokens]
    needed = 4 * max(sum(counts.values()) for counts in _kept(config).values())
    starts = [7 * number % len(words) for number in range(min(needed, config.corpus.max_sequences))]
    tokens = [list(islice(cycle(words), start, start + config.corpus.seq_len)) for start in starts]
    return filled(CORPUS, {"seq_id": pa.array(range(len(tokens)), pa.int64()), "tokens": pa.array(tokens)})


def make_evidence(config: RunConfig, tables: SampleTables, sample: Sequence[Unit]) -> None:
    """Exemplars with made-up activations, and top tokens, of the sample, from sequences of the corpus."""
    by_split: dict[str, list[int]] = {split: [] for split in SPLITS}
    for seq_id in sorted(tables.read(CORPUS, columns=["seq_id"])["seq_id"].to_pylist()):
        by_split[split_of(seq_id)].append(seq_id)
    generator = np.random.default_rng(config.run.seed)
    chosen = {unit: _choose(config, by_split, generator) for unit in sample}
    seq_ids = {seq_id for rows in chosen.values() for _, _, seq_id in rows}
    corpus = tables.read(CORPUS, ds.field("seq_id").isin(sorted(seq_ids)))
    texts = dict(zip(corpus["seq_id"].to_pylist(), corpus["tokens"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    for (module, polarity, index), kept in chosen.items():
        for band, split, seq_id in kept:
            values = generator.exponential(size=len(texts[seq_id])) * (generator.random(len(texts[seq_id])) < FIRING)
            values[-1] = 10.0 if band == "top" else 1.0
            values = values if polarity == "+" else -values
            rows.append(
                {"module": module, "index": index, "polarity": polarity, "band": band, "rank": len(rows), "seq_id": seq_id,
                 "peak": len(values) - 1, "max_activation": values[-1], "activations": values, "split": split}
            )  # fmt: skip
    tables.replaced[CORPUS.name] = corpus
    tables.replaced[EXEMPLARS.name] = pa.Table.from_pylist(rows, schema=EXEMPLARS.schema)
    listed = list(dict.fromkeys(token for tokens in texts.values() for token in tokens))[: config[Record].top_tokens]
    tables.replaced[UNITS.name] = _with_top_tokens(tables.replaced[UNITS.name], sample, listed)


def make_negatives(config: RunConfig, tables: SampleTables, sample: Sequence[Unit]) -> None:
    """As many hard negatives of the explain split as are asked for, from the sequences that the sample has."""
    corpus = tables.read(CORPUS, columns=["seq_id", "tokens"])
    texts = dict(zip(corpus["seq_id"].to_pylist(), corpus["tokens"].to_pylist(), strict=True))
    known = [seq_id for seq_id in sorted(texts) if split_of(seq_id) == "explain"][: config[Record].negatives]
    rows = [
        {"module": module, "index": index, "polarity": polarity, "band": ("similar", "neighbour")[rank % 2], "rank": rank,
         "seq_id": seq_id, "peak": 0, "max_activation": 0.0, "activations": [0.0] * len(texts[seq_id]), "split": "explain"}
        for module, polarity, index in sample for rank, seq_id in enumerate(known)
    ]  # fmt: skip
    tables.replaced[NEGATIVES.name] = pa.Table.from_pylist(rows, schema=NEGATIVES.schema)


def make_explanations(config: RunConfig, tables: SampleTables, units: Sequence[Unit], sample: Sequence[Unit]) -> None:
    """Every candidate of the units of the sample that fire, and first candidates of others to serve as controls."""
    others = _others(units, sample, config[Simulate].controls)
    rows = _stand_ins(config, tables, others, config[Explain].candidates)
    tables.replaced[EXPLANATIONS.name] = pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)


def make_scores(config: RunConfig, tables: SampleTables, units: Sequence[Unit], sample: Sequence[Unit]) -> None:
    """A published explanation of each unit of the sample that fires, and of others to serve as controls."""
    rows = _stand_ins(config, tables, _others(units, sample, config[Judge].controls), 1)
    tables.replaced[SCORES.name] = pa.Table.from_pylist(rows, schema=SCORES.schema)


def _others(units: Sequence[Unit], sample: Sequence[Unit], controls: int) -> list[Unit]:
    """Some units of each module and polarity that are not in the sample."""
    others: dict[tuple[str, str], list[Unit]] = {}
    for unit in units if controls else ():
        known = others.setdefault(unit[:2], [])
        if len(known) < controls and unit not in sample:
            known.append(unit)
    return [unit for known in others.values() for unit in known]


def _stand_ins(
    config: RunConfig, tables: SampleTables, others: Sequence[Unit], candidates: int
) -> list[dict[str, Any]]:
    """Rows with invented explanations: several of each unit that fires, one of each of the others."""
    above, below = ds.field("max_activation") > 0, ds.field("max_activation") < 0
    sides = ((ds.field("polarity") == "+") & above) | ((ds.field("polarity") == "-") & below)
    live = tables.read(EXEMPLARS, (ds.field("split") == "explain") & sides, ["module", "polarity", "index"])
    wanted = dict.fromkeys(zip(*live.to_pydict().values(), strict=True), candidates) | dict.fromkeys(others, 1)
    texts = cycle(neuron.explanation for neuron in few_shot_neurons(_FEW_SHOT))
    return [
        {"module": module, "index": index, "polarity": polarity, "explainer": config[Explain].explainer,
         "candidate": number, "text": next(texts), "status": "ok"}
        for (module, polarity, index), count in wanted.items() for number in range(count)
    ]  # fmt: skip


def _any_of(tables: Tables, sample: Sequence[Unit]) -> Any:
    modules = dict.fromkeys(module for module, _, _ in sample)
    return reduce(or_, (tables.is_unit(m, [index for module, _, index in sample if module == m]) for m in modules))


def _kept(config: RunConfig) -> dict[str, dict[str, int]]:
    """Sequences that a unit keeps, by split and band."""
    record = config[Record]
    bands = len(record.quantiles) + 1
    return {
        split: {
            "top": getattr(record.top, split),
            "quantile": getattr(record.per_band, split) * bands,
            "random": getattr(record.random, split),
        }
        for split in SPLITS
    }


def _choose(
    config: RunConfig, by_split: dict[str, list[int]], generator: np.random.Generator
) -> list[tuple[str, str, int]]:
    """(band, split, seq_id) of a unit: the first sequences of each split are `random`, the others drawn; none twice."""
    chosen: list[tuple[str, str, int]] = []
    for split, counts in _kept(config).items():
        first, rest = by_split[split][: counts["random"]], by_split[split][counts["random"] :]
        drawn = generator.permutation(rest)[: counts["top"] + counts["quantile"]].tolist()
        chosen += [("top", split, seq_id) for seq_id in drawn[: counts["top"]]]
        chosen += [("quantile", split, seq_id) for seq_id in drawn[counts["top"] :]]
        chosen += [("random", split, seq_id) for seq_id in first]
    return chosen


def _with_top_tokens(units: pa.Table, sample: Sequence[Unit], tokens: Sequence[str]) -> pa.Table:
    """The units with a table of top tokens for those of the sample."""
    listed = [{"token_id": 0, "token": token, "mean_activation": 1.0, "count": 3} for token in tokens]
    sampled = {(module, index) for module, _, index in sample}
    pairs = zip(units["module"].to_pylist(), units["index"].to_pylist(), strict=True)
    values = [listed if pair in sampled else None for pair in pairs]
    for name in ("top_tokens", "bottom_tokens"):
        field = UNITS.schema.field(name)
        units = units.set_column(UNITS.schema.get_field_index(name), field, pa.array(values, field.type))
    return units
