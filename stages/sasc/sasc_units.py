"""Which units SASC explains."""

from collections.abc import Mapping

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.subjects.activations import ModuleUnits
from stages.sasc.sasc_tables import NULLS
from stages.settings import Sasc
from stages.units import draw


def asked_modules(config: RunConfig) -> list[str]:
    """The modules of a run file of which units are explained, in its order."""
    wanted = config[Sasc].units
    return [
        module
        for module in config.subject.modules
        if not isinstance(wanted, dict) or wanted.get(module) or module == NULLS
    ]


def chosen_units(config: RunConfig, modules: Mapping[str, ModuleUnits]) -> dict[str, list[int]]:
    """Indices of the units, rising, by module: all, a number drawn by the seed, or those listed; null units always all.

    Args:
        modules: what a run file's modules are, in its order.

    Raises:
        UserError: a listed module or unit is not there.
    """
    wanted = config[Sasc].units
    if isinstance(wanted, dict):
        for module, indices in wanted.items():
            _refuse_missing(module, indices, modules)
    return {module: units_of(config, module, modules[module].width) for module in asked_modules(config)}


def units_of(config: RunConfig, module: str, width: int) -> list[int]:
    """Indices of the units of a module, rising.

    Args:
        width: how many it has.
    """
    wanted = config[Sasc].units
    if wanted == "all" or module == NULLS:
        return list(range(width))
    if isinstance(wanted, dict):
        return sorted(set(wanted.get(module, [])))
    return sorted(draw(config.run.seed, module).permutation(width)[:wanted].tolist())


def _refuse_missing(module: str, indices: list[int], modules: Mapping[str, ModuleUnits]) -> None:
    if module not in modules:
        raise UserError(f"sasc.units names {module!r}; subject.modules are {', '.join(modules)}")
    beyond = [index for index in indices if index >= modules[module].width]
    if beyond:
        raise UserError(
            f"sasc.units names unit {beyond[0]} of {module!r}, which has units 0 to {modules[module].width - 1}"
        )
