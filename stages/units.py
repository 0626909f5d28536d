"""Which units are explained, and their shards; the stages after it work on the same units."""

import zlib
from collections.abc import Collection
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Shard, chunks, numbered_shards
from pipeline.imports import IMPORTED
from pipeline.schemas import UNITS
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import listed_units, modules_of
from stages.human_explainer import written
from stages.settings import Explain, UnitDraw

Bools = npt.NDArray[np.bool_]


def chosen_units(config: RunConfig, tables: Tables) -> dict[str, list[int]]:
    """Indices of the units to explain, rising, by module: all, a number drawn by the seed, or those listed.

    Raises:
        UserError: no unit is as dense as the run file wants it.
    """
    explain = config[Explain]
    if isinstance(explain.units, dict):
        return listed_units(config, explain.units, "explain.units")
    if explain.drawn is None:
        widths = module_widths(tables)
        return {module: list(range(widths[module])) for module in modules_of(config)}
    chosen = {}
    for module in modules_of(config):
        units = tables.read(UNITS, pc.field("module") == module, ["density", "min"])
        wanted = _wanted(explain.drawn, explain.polarities, units)
        order = draw(units_seed(config), module).permutation(len(wanted))
        chosen[module] = sorted(order[wanted[order]][: explain.drawn.number].tolist())
    if not any(chosen.values()):
        raise UserError(
            f"explain.units = {explain.drawn.model_dump()}: no unit fires on such a share of the tokens; "
            "widen min_density to max_density (the column density of the table units says what there is)"
        )
    return chosen


def _wanted(drawn: UnitDraw, polarities: Collection[str], units: pa.Table) -> Bools:
    """(U,) which units of a module may be drawn: those that fire within the bounds of density.

    Without bounds, all are where none fires, so that their rows say why nothing is explained. So are units that are not recorded yet.
    """
    density = units["density"].to_numpy()
    wanted = ~((density < drawn.min_density) | (density > drawn.max_density))
    fires = ~(density <= 0) if "+" in polarities else np.zeros(len(density), bool)
    fires |= ~(units["min"].to_numpy() >= 0) if "-" in polarities else False
    bounded = drawn.min_density > 0 or drawn.max_density < 1
    return wanted & fires if bounded or fires.any() else wanted


def units_seed(config: RunConfig) -> int:
    """The seed that draws units."""
    return config.run.seed if config.run.units_seed is None else config.run.units_seed


def draw(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for a name, such as a module's; the same on every machine."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def unit_shards(config: RunConfig, tables: Tables, size: int) -> list[Shard]:
    """Shards of at most `size` chosen units of one module and polarity; for an explainer by hand, those that it explains."""
    if (by_hand := written(config)) is not None:
        return numbered_shards(
            {"module": module, "polarity": polarity, "indices": part}
            for (module, polarity), units in groupby(sorted(by_hand), key=lambda unit: unit[:2])
            for part in chunks([index for *_, index in units], size)
        )
    rows = tables.read(UNITS, columns=["module", "min"])  # a module where nothing below 0 was seen has no polarity "-"
    signed = set(rows["module"].filter(pc.less(pc.fill_null(rows["min"], -1.0), 0.0)).unique().to_pylist())
    parts = [
        {"module": module, "polarity": polarity, "indices": part}
        for module, indices in chosen_units(config, tables).items()
        for polarity in config[Explain].polarities
        if polarity == "+" or module in signed
        for part in chunks(indices, size)
    ]
    return numbered_shards(parts)


def unit_name(module: str, index: int, polarity: str) -> str:
    """What a unit's own random draws go by."""
    return f"{module}/{index}" if polarity == "+" else f"{module}/{index}/{polarity}"


def refuse_unknown_units(config: RunConfig) -> None:
    """Check the units listed in the run file against the subject, before anything is recorded.

    Raises:
        UserError: a listed module is not recorded, or it has no unit of that index.
    """
    wanted = config[Explain].units
    if not isinstance(wanted, dict) or config.corpus.source == IMPORTED:  # of an imported run there is no subject
        return
    from pipeline.subjects.activation_sources import describe_modules

    modules = describe_modules(config)
    for module, indices in listed_units(config, wanted, "explain.units").items():
        width = modules[module].width
        if beyond := [index for index in indices if index >= width]:
            raise UserError(f"explain.units names unit {beyond[0]} of {module!r}, which has units 0 to {width - 1}")


def module_widths(tables: Tables) -> dict[str, int]:
    """Units of each recorded module, in the order of the table."""
    modules = tables.read(UNITS, columns=["module"])["module"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in modules}
