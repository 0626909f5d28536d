"""The token lookup table as a simulator: what can be predicted without any words."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, FiniteFloat, ValidationError

from stages.evidence import TopToken
from stages.methods import Method
from stages.simulate.simulation import SCALE, Simulation


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
    tokens = [(token, float(f"{total / count:.6g}")) for token, (total, count) in sums.items() if count]
    return TokenTable(tokens=tokens, rest=rest_mean).model_dump_json()


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


LOOKUP_METHOD = Method(
    "each token's mean activation, from a table instead of an explanation", lambda *_: LookupSimulator(), model="none"
)
