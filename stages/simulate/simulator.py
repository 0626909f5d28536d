"""What every simulator is: an explanation and tokens in, expected activations out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, FiniteFloat, ValidationError

from pipeline.llm.engine import NUMBERS
from stages.evidence import TopToken
from stages.methods import Method

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

    @property
    def prompt_id(self) -> str:
        """Prompt in prompts/ and its version; empty without one."""
        ...

    @property
    def model(self) -> str:
        """The language model that takes part, empty where none does."""
        ...

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """One Simulation for each sequence, in order."""
        ...


class TokenTable(BaseModel):
    """The table as it is written into the text of an explanation, in JSON."""

    tokens: list[tuple[str, FiniteFloat]]
    """Tokens with their means."""
    rest: FiniteFloat | None
    """Mean activation of all tokens not listed; None where it is not known, and then they count as 0."""


def render_table(top_tokens: Sequence[TopToken], rest_mean: float | None = None) -> str:
    """A TokenTable as text; means have six significant digits.

    Tokens that look alike (several ids of one text) become one, their means weighed by their counts.

    Raises:
        ValueError: a mean is not finite.
    """
    sums: dict[str, tuple[float, int]] = {}
    for entry in top_tokens:
        total, count = sums.get(entry.token, (0.0, 0))
        sums[entry.token] = (total + entry.mean_activation * entry.count, count + entry.count)
    tokens = [(token, _rounded(total / count)) for token, (total, count) in sums.items() if count]
    return TokenTable(tokens=tokens, rest=None if rest_mean is None else _rounded(rest_mean)).model_dump_json()


def _rounded(mean: float) -> float:
    return float(f"{mean:.6g}")


class LookupSimulator:
    """Predicts from a table that `render_table` wrote, and from nothing else.

    A token's value is max(0, mean), a token not listed has that of the rest; all are scaled by one factor so that the
    largest mean of the table is 10.
    """

    prompt_id = model = ""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; every Simulation has an error where the explanation is no table."""
        try:
            table = TokenTable.model_validate_json(explanation)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            message = f"the explanation is no token table ({fault}); `lookup` reads only what its own table writes"
            return [Simulation.failed(message) for _ in sequences]
        means, rest = dict(table.tokens), table.rest or 0.0
        largest = max([*means.values(), rest])
        scale = largest if largest > 0 else np.inf
        values = [np.array([means.get(token, rest) for token in tokens], np.float64) for tokens in sequences]
        return [Simulation.certain(SCALE * (np.maximum(value, 0.0) / scale)) for value in values]


METHOD = Method(
    "each token's mean activation, from a table instead of an explanation", lambda *_: LookupSimulator(), model="none"
)
