"""What estimates need of SASC: how much its stages are asked for, and rows that stand in for tables which are not there yet."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.execution.stage import Unit
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import needs_model
from stages.estimates import filled
from stages.sasc import READINGS, Sasc
from stages.sasc.sasc_tables import NGRAMS, RESPONSES, THEMES
from stages.sasc.sasc_units import chosen_units, polarities_of, with_nulls

SEQUENCES = 64
"""Sequences that made-up n-grams are taken from."""
EXPLANATION = "words of kind {} about life in towns and villages, such as streets, markets and neighbours"


def sizes(config: RunConfig) -> dict[str, str]:
    """Upper bounds of what functions of texts are asked."""
    sasc, units = config[Sasc], _units_to_explain(config)
    asked = {module for module, _, _ in units}
    boxes = sum(not needs_model([module]) for module in asked)
    in_model = sum(needs_model([module]) for module in asked)
    found = {
        "units explained by n-grams": f"{len(units):,}, with {sasc.nulls:,} null units",
        "n-grams": f"{sasc.max_ngrams:,} at most",
    }
    if boxes:
        found["n-grams evaluated by black boxes"] = f"{boxes * sasc.max_ngrams:,} at most"
    if in_model:
        found |= choice(READINGS, sasc.reading).sizes(config, in_model)
    return found | {"texts for and against explanations": f"{len(units) * sasc.candidates * 2 * sasc.texts:,} at most"}


def made_up_ngrams(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """Responses of all units that are explained; of the units given, n-grams drawn from the corpus."""
    modules, polarities, indices = zip(*_units_to_explain(config), strict=True)
    responses = {"module": modules, "polarity": polarities, "index": indices, "status": ["ok"] * len(modules)}
    sequences = tables.read(CORPUS, columns=["tokens"]).slice(0, SEQUENCES)["tokens"].to_pylist() if units else []
    listed, generator = _distinct_ngrams(config[Sasc], sequences), np.random.default_rng(config.run.seed)
    rows = [
        {"module": module, "polarity": polarity, "index": index, "rank": rank, "text": listed[place], "response": -float(rank)}
        for module, polarity, index in units
        for rank, place in enumerate(generator.permutation(len(listed))[: config[Sasc].kept].tolist())
    ]  # fmt: skip
    return {
        RESPONSES.name: filled(RESPONSES, responses),
        NGRAMS.name: pa.Table.from_pylist(rows, schema=NGRAMS.schema),
    }


def made_up_themes(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """As many explanations as a unit may have, of those of the units that respond to n-grams."""
    rows = tables.read(RESPONSES, columns=["module", "polarity", "index", "status"]).to_pylist()
    answered = {(row["module"], row["polarity"], row["index"]) for row in rows if row["status"] == "ok"}
    count = config[Sasc].candidates
    listed = [
        {"module": module, "polarity": polarity, "index": index, "candidate": number, "status": "ok",
         "text": EXPLANATION.format(place * count + number)}
        for place, (module, polarity, index) in enumerate(units) if (module, polarity, index) in answered
        for number in range(count)
    ]  # fmt: skip
    return {THEMES.name: pa.Table.from_pylist(listed, schema=THEMES.schema)}


def _units_to_explain(config: RunConfig) -> list[Unit]:
    """The units that SASC explains, null units last."""
    from pipeline.subjects.activation_sources import describe_modules

    config = with_nulls(config)
    modules = describe_modules(config)
    return [
        (module, polarity, index)
        for module, indices in chosen_units(config, modules).items()
        for polarity in polarities_of(config, module, modules[module].signed)
        for index in indices
    ]


def _distinct_ngrams(sasc: Sasc, sequences: Sequence[Sequence[str]]) -> list[str]:
    """The n-grams of some sequences of tokens, words told by the white space between them."""
    tokens = sasc.pieces == "tokens"
    pieces = [list(one) if tokens else "".join(one).split() for one in sequences]
    found = dict.fromkeys(
        ("" if tokens else " ").join(own[start : start + n])
        for own in pieces
        for n in sorted(set(sasc.sizes))
        for start in range(len(own) - n + 1)
    )
    return list(found)
