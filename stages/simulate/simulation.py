"""What a simulator is, and what it gives: expected activations on one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import NUMBERS

Floats = npt.NDArray[np.float32]
SCALE = 10.0
"""Expected activations run from 0 to SCALE."""


@dataclass(frozen=True)
class Simulation:
    """The activations expected on one sequence of T tokens."""

    expected: Floats | None
    """(T,) from 0 to SCALE; None where nothing could be simulated."""
    coverage: Floats | None
    """(T,) probability mass that the model put on the numbers; 1 where the method has no such mass."""
    error: str = ""
    prompt_tokens: int = 0
    """Tokens read for it; where one request covers several sequences, the first of them carries all."""
    completion_tokens: int = 0

    @classmethod
    def failed(cls, error: str) -> "Simulation":
        """One without values, and why."""
        return cls(None, None, error)

    @classmethod
    def certain(cls, values: npt.ArrayLike) -> "Simulation":
        """One by a method without probabilities: the coverage is 1 throughout."""
        expected = np.asarray(values, dtype=np.float32)
        return cls(expected, np.ones_like(expected))

    @classmethod
    def from_probabilities(cls, probabilities: Floats, coverage: Floats) -> "Simulation":
        """The mean number at each token; an error where some token's numbers have no probability at all.

        Args:
            probabilities: (T, 11), each row sums to 1.
            coverage: (T,) probability of all numbers together.
        """
        if missing := int((coverage <= 0).sum()):
            return cls.failed(f"no number found at {missing} of {len(coverage)} tokens")
        expected = probabilities @ np.array(NUMBERS, dtype=np.float32)  # (T, 11) -> (T,)
        return cls(expected.astype(np.float32), coverage)


class Simulator(Protocol):
    """Predicts a unit's activations from words alone: it sees tokens and the explanation, nothing else."""

    prompt_id: str
    """Prompt in prompts/ and its version; empty without one."""
    model: str
    """The language model that takes part; empty where none does."""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """One Simulation for each sequence, in order."""
        ...
