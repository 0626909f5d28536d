"""How much a run will take, before it is run."""

from pipeline.estimate.sizes import Estimate, estimate
from pipeline.estimate.table import estimate_table

__all__ = ["Estimate", "estimate", "estimate_table"]
