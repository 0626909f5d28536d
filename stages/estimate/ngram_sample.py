"""A sample of units with their n-grams and explanations: what the stages of SASC read that ask language models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.runner import Stages
from pipeline.execution.stage import Stage
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.activations import ModuleUnits
from stages.estimate.inputs import make_corpus
from stages.estimate.sample import Sample, SampleTables, Unit, drawn, filled, planned_units
from stages.sasc.sasc_tables import NGRAMS, NULLS, RESPONSES, THEMES
from stages.sasc.sasc_units import polarities_of
from stages.settings import Sasc

SEQUENCES = 64
"""Sequences that stand-in n-grams are taken from."""
EXPLANATION = "words of kind {} about life in towns and villages, such as streets, markets and neighbours"


def sample_with_ngrams(
    stage: Stage, config: RunConfig, stages: Stages, finished: set[str], tables: SampleTables
) -> Sample:
    """Units of a stage; what it reads of them and is not finished is put into the tables.

    Args:
        finished: names of the tables that are whole.
    """
    known = {RESPONSES.name, NGRAMS.name} <= finished
    if not known:
        tables.replaced[RESPONSES.name] = make_responses(units_to_explain(config, describe_modules(config)))
    units = planned_units(stage, config, tables)
    sample = drawn(config, units)
    read = {table.name for name in stage.upstream(config) for table in stages[name].writes}
    if THEMES.name in read:
        if THEMES.name in finished:
            return Sample(units, sample, "the explanations of the run")
        tables.replaced[THEMES.name] = make_themes(config, tables, sample)
        return Sample(units, sample, "stand-in explanations")
    if known:
        return Sample(units, sample, "recorded n-grams")
    rows = Tables(config.root).read(CORPUS) if CORPUS.name in finished else make_corpus(config)
    tables.replaced[NGRAMS.name] = make_ngrams(config, rows.slice(0, SEQUENCES)["tokens"].to_pylist(), sample)
    origin = "of the corpus" if CORPUS.name in finished else "of stand-in texts"
    return Sample(units, sample, f"n-grams {origin}, drawn at random (no function was asked about them yet)")


def units_to_explain(config: RunConfig, modules: Mapping[str, ModuleUnits]) -> list[Unit]:
    """The units that SASC explains, null units last; where a number is drawn, the first ones stand for those drawn.

    Args:
        modules: what the run file's modules are.
    """
    wanted = config[Sasc].units
    found: list[Unit] = []
    for module, units in modules.items():
        if isinstance(wanted, dict):
            indices = sorted(set(wanted.get(module, ())))
        else:
            indices = list(range(units.width if wanted == "all" else min(wanted, units.width)))
        signs = polarities_of(config, module, units.signed)
        found += [(module, sign, index) for sign in signs for index in indices]
    signs = polarities_of(config, NULLS, signed=True)
    return [*found, *((NULLS, sign, index) for sign in signs for index in range(config[Sasc].nulls))]


def make_responses(units: Sequence[Unit]) -> pa.Table:
    """Units that respond to n-grams, so that they are explained."""
    modules, signs, indices = zip(*units, strict=True) if units else ((), (), ())
    columns = {
        "module": pa.array(modules, pa.string()),
        "index": pa.array(indices, pa.int32()),
        "polarity": pa.array(signs, pa.string()),
        "status": pa.array(["ok"] * len(units), pa.string()),
    }
    return filled(RESPONSES, columns)


def make_ngrams(config: RunConfig, sequences: Sequence[Sequence[str]], sample: Sequence[Unit]) -> pa.Table:
    """The n-grams that each unit keeps, drawn from sequences of tokens."""
    generator = np.random.default_rng(config.run.seed)
    whole = config[Sasc].pieces == "tokens"
    pieces = [list(tokens) if whole else "".join(tokens).split() for tokens in sequences]
    distinct = dict.fromkeys(
        ("" if whole else " ").join(own[start : start + n])
        for own in pieces
        for n in sorted(set(config[Sasc].sizes))
        for start in range(len(own) - n + 1)
    )
    listed = list(distinct)
    rows: list[dict[str, Any]] = [
        {"module": module, "polarity": sign, "index": index, "rank": rank, "text": listed[place], "response": -float(rank)}
        for module, sign, index in sample
        for rank, place in enumerate(generator.permutation(len(listed))[: config[Sasc].kept].tolist())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=NGRAMS.schema)


def make_themes(config: RunConfig, tables: Tables, sample: Sequence[Unit]) -> pa.Table:
    """As many explanations as a unit may have, for those of the sample that respond to n-grams."""
    rows = tables.read(RESPONSES, columns=["module", "polarity", "index", "status"]).to_pylist()
    answered = {(row["module"], row["polarity"], row["index"]) for row in rows if row["status"] == "ok"}
    listed = [
        {"module": module, "polarity": sign, "index": index, "candidate": number, "status": "ok",
         "text": EXPLANATION.format(place * config[Sasc].candidates + number)}
        for place, (module, sign, index) in enumerate(sample)
        if (module, sign, index) in answered
        for number in range(config[Sasc].candidates)
    ]  # fmt: skip
    return pa.Table.from_pylist(listed, schema=THEMES.schema)
