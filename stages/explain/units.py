"""Which units are explained, and their shards; the stages after it work on the same units."""

import zlib

import numpy as np

from pipeline.config import RunConfig
from pipeline.context import module_widths
from pipeline.errors import UserError
from pipeline.stage import Shard, chunks
from pipeline.tables import Tables


def chosen_units(config: RunConfig, tables: Tables) -> dict[str, list[int]]:
    """Indices of the units to explain, rising, by module: all, a number drawn by the seed, or those listed."""
    widths = module_widths(tables)
    wanted = config.explain.units
    if isinstance(wanted, dict):
        return {module: sorted(set(wanted[module])) for module in config.subject.modules if module in wanted}
    chosen = {}
    for module in config.subject.modules:
        count = widths[module] if wanted == "all" else min(wanted, widths[module])
        chosen[module] = sorted(draw(config.run.seed, module).permutation(widths[module])[:count].tolist())
    return chosen


def draw(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for a name, such as a module's; the same on every machine."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def unit_shards(config: RunConfig, tables: Tables, size: int) -> list[Shard]:
    """Shards of at most `size` chosen units of one module."""
    parts = [
        {"module": module, "indices": part}
        for module, indices in chosen_units(config, tables).items()
        for part in chunks(indices, size)
    ]
    return [Shard(f"part-{number:05d}", part) for number, part in enumerate(parts)]


def refuse_unknown_units(config: RunConfig) -> None:
    """Check the units listed in the run file against the subject, before anything is recorded.

    Raises:
        UserError: a listed module is not recorded, or it has no unit of that index.
    """
    if isinstance(config.explain.units, dict):
        from pipeline.subjects.facts import check_modules

        subject = config.subject
        known = check_modules(subject.model, subject.modules, subject.trust_remote_code, subject)
        widths = {module: units.width for module, units in known.items()}
        for module, indices in config.explain.units.items():
            _refuse_missing(module, indices, widths)


def _refuse_missing(module: str, indices: list[int], widths: dict[str, int]) -> None:
    if module not in widths:
        raise UserError(f"explain.units names {module!r}; recorded are {', '.join(widths)}")
    beyond = [index for index in indices if index >= widths[module]]
    if beyond:
        raise UserError(
            f"explain.units names unit {beyond[0]} of {module!r}, which has units 0 to {widths[module] - 1}"
        )
