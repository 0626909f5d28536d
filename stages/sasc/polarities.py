"""Which ends of a module's units SASC explains: one rule for the stages and for the estimate."""

from pipeline.config import RunConfig
from stages.sasc.sasc_tables import NULLS
from stages.settings import Sasc


def polarities_of(config: RunConfig, module: str, signed: bool) -> list[str]:
    """Ends of a module's units that are explained; of null units one, as a direction is as random as its opposite.

    Args:
        signed: whether the module's units have negative activations.
    """
    wanted: list[str] = [str(polarity) for polarity in config[Sasc].polarities]
    if module == NULLS:
        return wanted[:1]
    return [polarity for polarity in wanted if polarity == "+" or signed]
