"""How much a run will take, before it is run."""

from stages.estimate.sizes import Estimate, estimate
from stages.estimate.table import estimate_table

__all__ = ["Estimate", "estimate", "estimate_table"]
