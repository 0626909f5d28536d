"""One bad unit never stops a run: it has a row that says why."""

import asyncio

import numpy as np
import pytest

from pipeline.errors import UserError
from stages.evidence import Evidence, Exemplar
from stages.explain.explain_units import Candidate, ExplanationError, explain_unit


class Failing:
    """An explainer that raises what it is given, or writes two candidates."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def __call__(self, evidence: Evidence, seed: int) -> list[Candidate]:
        if self.error:
            raise self.error
        return [Candidate("first", "explain/x.v1", "m", 10, 2), Candidate("second")]


def evidence(largest: float) -> Evidence:
    activations = np.array([np.nan, -1.0, largest], dtype=np.float32)
    return Evidence("layers.0.mlp", 3, "+", [Exemplar(0, "top", ["a", "b", "c"], activations)], [])


def test_candidates_are_numbered_rows() -> None:
    rows = asyncio.run(explain_unit("failing", Failing(), evidence(1.0), 0))
    assert [(row["candidate"], row["text"], row["status"]) for row in rows] == [(0, "first", "ok"), (1, "second", "ok")]
    assert (rows[0]["prompt_id"], rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == ("explain/x.v1", 10, 2)


@pytest.mark.parametrize("error", [ExplanationError("no reply"), ZeroDivisionError("by zero")])
def test_an_error_is_a_failed_row(error: Exception) -> None:
    [row] = asyncio.run(explain_unit("failing", Failing(error), evidence(1.0), 0))
    assert (row["status"], row["text"]) == ("failed", None)
    assert str(error) in row["error"]


@pytest.mark.parametrize("error", [UserError("no model"), MemoryError(), OSError("disk")])
def test_an_error_that_is_not_the_units_own_stops_the_shard(error: Exception) -> None:
    with pytest.raises(type(error)):
        asyncio.run(explain_unit("failing", Failing(error), evidence(1.0), 0))


@pytest.mark.parametrize("largest", [0.0, -0.5, np.nan])
def test_a_unit_that_never_fires_is_dead_and_not_failed(largest: float) -> None:
    [row] = asyncio.run(explain_unit("failing", Failing(AssertionError("must not be asked")), evidence(largest), 0))
    assert row["status"] == "dead"


def test_an_explanation_that_was_cut_off_is_called_so() -> None:
    class Cut(Failing):
        async def __call__(self, evidence: Evidence, seed: int) -> list[Candidate]:
            return [Candidate("words about mus", truncated=True)]

    [row] = asyncio.run(explain_unit("cut", Cut(), evidence(1.0), 0))
    assert (row["status"], row["text"]) == ("truncated", "words about mus")
    assert "explain.max_tokens" in row["error"]
