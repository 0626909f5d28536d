"""The token lookup table as a simulator: what can be predicted without any words."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, FiniteFloat, ValidationError

from stages.methods import Method
from stages.simulate.simulation import SCALE, Simulation


class TokenTable(BaseModel):
    """A table that is written into the text of an explanation, in JSON."""

    tokens: list[tuple[str, FiniteFloat]]
    """Tokens with their means."""
    rest: FiniteFloat | None = None
    """Mean activation of all tokens not listed; None where it is not known, and then they count as 0."""


def predicted(means: Mapping[str, float], rest: float, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
    """Each token's mean, on a scale from the lowest mean of the table (0) to the highest (10); that of the rest for the others.

    So the correlation with the activations is that of the means themselves, those below zero among them.
    """
    low, high = min([*means.values(), rest]), max([*means.values(), rest])
    width = high - low if high > low else 1.0
    values = [np.array([means.get(token, rest) for token in tokens], np.float64) for tokens in sequences]
    return [Simulation.certain(SCALE * ((value - low) / width)) for value in values]


class LookupSimulator:
    """Predicts from a TokenTable in JSON, and from nothing else."""

    prompt_id = model = ""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; every Simulation has an error where the explanation is no table."""
        try:
            table = TokenTable.model_validate_json(explanation)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            message = f"the explanation is no token table ({fault}); `lookup` reads only a table in JSON"
            return [Simulation.failed(message) for _ in sequences]
        return predicted(dict(table.tokens), table.rest or 0.0, sequences)


LOOKUP_METHOD = Method(
    "each token's mean activation, from a table instead of an explanation", lambda *_: LookupSimulator(), model="none"
)
