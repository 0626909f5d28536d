"""The units that SASC explains: which ones, in which polarities, their shards, and the rows of their tables.

Null units are among them: random directions of a sentence embedder's space. They go through every stage as other units do, with
n-grams, explanations, texts and scores of their own. So a unit's score is compared with what the whole procedure reaches on a
function without a concept. Their rows stand in the tables under the module NULLS.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.config import BlackBox, RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Shard, Unit, chunks, numbered_shards
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ModuleUnits
from pipeline.subjects.module_kinds import BLACK_BOX, listed_units, modules_of
from stages.sasc import Sasc
from stages.sasc.sasc_tables import NULLS, RESPONSES
from stages.units import draw, units_seed

NULL_BOX = NULLS.removeprefix(BLACK_BOX)

Row = dict[str, Any]


def with_nulls(config: RunConfig) -> RunConfig:
    """The run file with the null units as one more module, if it wants any."""
    sasc, subject = config[Sasc], config.subject
    if not sasc.nulls:
        return config
    seed = int(draw(config.run.seed, NULL_BOX).integers(2**31))
    box = BlackBox(
        call="pipeline.black_boxes.random_directions:random_directions",
        arguments={"units": sasc.nulls, "seed": seed, "embedder": sasc.embedder, "device": sasc.device},
        units=sasc.nulls,
    )
    changed = {"modules": [*subject.modules, NULLS], "black_boxes": subject.black_boxes | {NULL_BOX: box}}
    return config.model_copy(update={"subject": subject.model_copy(update=changed)})


def asked_modules(config: RunConfig) -> list[str]:
    """The modules of a run file with units to explain, in its order."""
    listed = _listed(config)
    return [name for name in modules_of(config) if listed is None or listed.get(name) or name == NULLS]


def _listed(config: RunConfig) -> dict[str, list[int]] | None:
    """Indices by module where the run file lists units."""
    wanted = config[Sasc].units
    return listed_units(config, wanted, "sasc.units") if isinstance(wanted, dict) else None


def chosen_units(config: RunConfig, modules: Mapping[str, ModuleUnits]) -> dict[str, list[int]]:
    """Indices of the units to explain, rising, by module.

    Raises:
        UserError: sasc.units lists a module or a unit that is not there.
    """
    for module, indices in (_listed(config) or {}).items():
        width = modules[module].width
        if beyond := [index for index in indices if index >= width]:
            raise UserError(f"sasc.units names unit {beyond[0]} of {module!r}, which has units 0 to {width - 1}")
    return {module: units_of(config, module, modules[module].width) for module in asked_modules(config)}


def units_of(config: RunConfig, module: str, width: int) -> list[int]:
    """Those of a module with `width` units: all, a number drawn by the seed, or those listed; null units always all."""
    wanted = config[Sasc].units
    if wanted == "all" or module == NULLS:
        return list(range(width))
    if isinstance(wanted, dict):
        return (_listed(config) or {}).get(module, [])
    return sorted(draw(units_seed(config), module).permutation(width)[:wanted].tolist())


def polarities_of(config: RunConfig, module: str, signed: bool) -> list[str]:
    """The polarities in which a module's units are explained; null units in one, as the opposite of a direction is as random."""
    wanted: list[str] = list(dict.fromkeys(config[Sasc].polarities))
    return wanted[:1] if module == NULLS else [polarity for polarity in wanted if polarity == "+" or signed]


def units_to_explain(config: RunConfig) -> list[Unit]:
    """The units that SASC explains, null units last; for estimates."""
    from pipeline.subjects.activation_sources import describe_modules

    config = with_nulls(config)
    modules = describe_modules(config)
    return [
        (module, polarity, index)
        for module, indices in chosen_units(config, modules).items()
        for polarity in polarities_of(config, module, modules[module].signed)
        for index in indices
    ]


def unit_shards(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most sasc.shard_units units of one module and polarity, in the order of the run file, null units last.

    The plan of all stages after the n-grams were merged.
    """
    units = tables.read(RESPONSES, columns=["module", "polarity", "index"]).to_pandas()
    indices = units.groupby(["module", "polarity"])["index"].agg(sorted).to_dict()
    return numbered_shards(
        {"module": module, "polarity": polarity, "indices": part}
        for module in modules_of(with_nulls(config))
        for polarity in dict.fromkeys(config[Sasc].polarities)
        for part in chunks(indices.get((module, polarity), []), config[Sasc].shard_units)
    )


def rows_by_unit(tables: Tables, table: TableSchema, key: Mapping[str, Any]) -> dict[int, list[Row]]:
    """Rows of the units of a shard, by index."""
    found: dict[int, list[Row]] = {index: [] for index in key["indices"]}
    for row in tables.read(table, tables.is_unit(key["module"], key["indices"], key["polarity"])).to_pylist():
        found[row["index"]].append(row)
    return found
