"""Which units SASC explains."""

from collections.abc import Mapping

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.sasc_schemas import NULLS
from pipeline.subjects.activations import ModuleUnits
from stages.explain.units import draw


def chosen_units(config: RunConfig, modules: Mapping[str, ModuleUnits]) -> dict[str, list[int]]:
    """Indices of the units, rising, by module: all, a number drawn by the seed, or those listed; null units always all.

    Args:
        modules: what a run file's modules are, in its order.

    Raises:
        UserError: a listed module or unit is not there.
    """
    wanted = config.sasc.units
    if isinstance(wanted, dict):
        for module, indices in wanted.items():
            _refuse_missing(module, indices, modules)
        listed = {module: sorted(set(wanted[module])) for module in modules if wanted.get(module)}
        return listed | ({NULLS: list(range(modules[NULLS].width))} if NULLS in modules else {})
    chosen = {}
    for module, units in modules.items():
        count = units.width if wanted == "all" or module == NULLS else min(wanted, units.width)
        chosen[module] = sorted(draw(config.run.seed, module).permutation(units.width)[:count].tolist())
    return chosen


def _refuse_missing(module: str, indices: list[int], modules: Mapping[str, ModuleUnits]) -> None:
    if module not in modules:
        raise UserError(f"sasc.units names {module!r}; subject.modules are {', '.join(modules)}")
    beyond = [index for index in indices if index >= modules[module].width]
    if beyond:
        raise UserError(
            f"sasc.units names unit {beyond[0]} of {module!r}, which has units 0 to {modules[module].width - 1}"
        )
