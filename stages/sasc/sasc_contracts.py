"""What the methods of SASC's steps are: ways to read n-grams, summarisers of them, and sources of texts.

Their modules import no model library before they are asked to do something.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.storage.tables import Tables
from stages.explain.explain_units import Candidate

Kept = Sequence[tuple[str, float]]
"""N-grams with their responses, by falling response."""
Chosen = Mapping[str, Sequence[int]]
"""Indices of the units to explain, by module."""


@dataclass(frozen=True)
class Ngrams:
    """Some n-grams of the list."""

    ids: npt.NDArray[np.int64]
    texts: list[str]


@dataclass(frozen=True)
class Reading:
    """How units of the model respond to n-grams."""

    summary: str
    """One line for people."""
    scan: Callable[[Context, Ngrams, Chosen], dict[str, pa.Table]]
    """Rows of NGRAM_PARTIALS by module."""
    parts: Callable[[RunConfig, Tables, str], Iterable[dict[str, Any]]] | None = None
    """What the shards of a module cover, each with the whole list. None for shards of sasc.shard_ngrams n-grams of all modules."""
    reads: tuple[str, ...] = ()
    """Stages that it reads, beside the list and the corpus."""
    record: frozenset[str] = frozenset()
    """Settings of the section Record that change what it reads."""
    check: Callable[[RunConfig], None] = lambda _: None
    """Raises ValueError where the run file does not record what it reads."""
    sizes: Callable[[RunConfig, int], dict[str, str]] = lambda *_: {}
    """For estimates: what the model is asked for, in words, given how many of its modules are read."""


class Summariser(Protocol):
    """Says what drawn n-grams share."""

    async def explain(self, drawn: Sequence[str], kept: Kept, seed: int) -> Candidate:
        """One explanation.

        Args:
            drawn: n-grams by rank.
            kept: all kept n-grams with their responses, by falling response; those of `drawn` are among them.

        Raises:
            ExplanationError: nothing can be said of them.
        """
        ...


@dataclass(frozen=True)
class Texts:
    """Texts for and against an explanation; there may be fewer than were wanted.

    Its pairs are of the relevant and of the baseline texts.
    """

    relevant: list[str]
    baseline: list[str]
    origin: str
    """written by a language model, or retrieved from the corpus."""
    model: str = ""
    prompt_ids: tuple[str, str] = ("", "")
    prompt_tokens: tuple[int, int] = (0, 0)
    completion_tokens: tuple[int, int] = (0, 0)
    errors: tuple[str, str] = ("", "")
    """Why there are fewer texts of a kind than were wanted."""


class Synthesizer(Protocol):
    """Provides texts for and against an explanation."""

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind, all different."""
        ...
