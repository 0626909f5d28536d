"""Expected activations from the probabilities of the numbers."""

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import NUMBERS
from stages.simulate.base import Simulation

Floats = npt.NDArray[np.float32]


def expected_values(probabilities: Floats, coverage: Floats) -> Simulation:
    """The mean number at each token; an error where some token's numbers have no probability at all.

    Args:
        probabilities: (T, 11), each row sums to 1.
        coverage: (T,) probability of all numbers together.
    """
    if missing := int((coverage <= 0).sum()):
        return Simulation(None, None, f"no number found at {missing} of {len(coverage)} tokens")
    expected = probabilities @ np.array(NUMBERS, dtype=np.float32)  # (T, 11) -> (T,)
    return Simulation(expected.astype(np.float32), coverage)
