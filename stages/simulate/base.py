"""What every simulator is: an explanation and tokens in, expected activations out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

SCALE = 10.0
"""Expected activations run from 0 to SCALE."""


@dataclass(frozen=True)
class Simulation:
    """The activations expected on one sequence of T tokens."""

    expected: npt.NDArray[np.float32] | None
    """(T,) from 0 to SCALE; None where nothing could be simulated."""
    coverage: npt.NDArray[np.float32] | None
    """(T,) probability mass that the model put on the numbers; 1 where the method has no such mass."""
    error: str = ""
    prompt_tokens: int = 0
    """Tokens read for it; where one request covers several sequences, the first of them carries all."""
    completion_tokens: int = 0


class Simulator(Protocol):
    """Predicts a unit's activations from words alone: it sees tokens and the explanation, nothing else."""

    name: str
    prompt_id: str
    """Prompt in prompts/ and its version; empty without one."""
    model: str
    """The language model that takes part, empty where none does."""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """One Simulation for each sequence, in order."""
        ...
