"""The token lookup table as a simulator: each token's mean activation, whatever stands around it."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.evidence import TopToken
from stages.methods import Method
from stages.simulate.simulator import SCALE, Simulation


def render_table(top_tokens: Sequence[TopToken], rest_mean: float | None = None) -> str:
    """The table as the text of an explanation, in JSON: {"tokens": [[token, mean], ...], "rest": mean or null}.

    Tokens that look alike (several ids of one text) become one, their means weighed by their counts. Means have six
    significant digits.

    Args:
        top_tokens: tokens with their mean activation and count over the `explain` sequences.
        rest_mean: mean activation of all tokens not listed; None where it is not known, and then they count as 0.

    Raises:
        ValueError: a mean is not finite.
    """
    sums: dict[str, tuple[float, int]] = {}
    for entry in top_tokens:
        total, count = sums.get(entry.token, (0.0, 0))
        sums[entry.token] = (total + entry.mean_activation * entry.count, count + entry.count)
    tokens = [[token, _rounded(total / count)] for token, (total, count) in sums.items() if count]
    rest = None if rest_mean is None else _rounded(rest_mean)
    return json.dumps({"tokens": tokens, "rest": rest}, ensure_ascii=False, allow_nan=False)


def _rounded(mean: float) -> float:
    return float(f"{mean:.6g}")


class LookupSimulator:
    """Predicts from a table that `render_table` wrote, and from nothing else.

    A token's value is max(0, mean), a token not listed has that of the rest; all are scaled by one factor so that the
    largest mean of the table is 10.
    """

    prompt_id = ""
    model = ""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; every Simulation has an error where the explanation is no table."""
        try:
            means, rest = _parse(explanation)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            message = f"the explanation is no token table ({error}); `lookup` reads only what its own table writes"
            return [Simulation.failed(message) for _ in sequences]
        largest = max([*means.values(), rest])
        return [_predicted(tokens, means, rest, largest) for tokens in sequences]


def _predicted(tokens: Sequence[str], means: dict[str, float], rest: float, largest: float) -> Simulation:
    values = np.array([means.get(token, rest) for token in tokens], dtype=np.float64)
    shares = np.clip(values, 0.0, None) / largest if largest > 0 else np.zeros(len(values))
    return Simulation.certain(SCALE * shares)


def _parse(text: str) -> tuple[dict[str, float], float]:
    """Means by token, and the mean of the rest.

    Raises:
        ValueError, TypeError, KeyError, OverflowError, RecursionError: the text is not such a table.
    """
    table: Any = json.loads(text)
    if not isinstance(table, dict) or not isinstance(table["tokens"], list):
        raise ValueError('expected {"tokens": [[token, mean], ...], "rest": mean}')
    means = {str(token): _finite(mean) for token, mean in table["tokens"]}
    return means, 0.0 if table["rest"] is None else _finite(table["rest"])


def _finite(mean: float) -> float:
    if not math.isfinite(float(mean)):
        raise ValueError(f"a mean of {mean}")
    return float(mean)


METHOD = Method(
    "each token's mean activation, from a table instead of an explanation", lambda *_: LookupSimulator(), model="none"
)
