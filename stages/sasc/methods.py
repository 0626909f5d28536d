"""What the methods of SASC's steps are: ways to read n-grams, summarisers of them, and sources of texts.

The module of a method has it as METHOD, and imports no model library before it is asked to do something.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.context import Context
from pipeline.llm.engine import Engine, Request
from pipeline.storage.tables import Tables
from stages.explain.explainer import Candidate
from stages.sasc import READINGS, SUMMARISERS, SYNTHESIZERS
from stages.settings import Sasc

T_co = TypeVar("T_co", covariant=True)
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

    name: str

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


@dataclass(frozen=True)
class Method(Generic[T_co]):
    """A summariser, or a source of texts, as a run file names it."""

    open: Callable[[Context, Engine | None], T_co]
    """Given the step's language model, if it asks one."""
    settings: Callable[[RunConfig], dict[str, Any]] = lambda _: {}
    """What can change its results, beyond the settings of the stage and the language model."""
    check: Callable[[RunConfig], None] = lambda _: None
    """Raises UserError where it lacks something that it works with."""
    engine: Literal["none", "optional", "needed"] = "none"
    """Whether it asks the step's language model."""
    prompts: tuple[str, ...] = ()
    """Beginnings of the names of the prompts that it shows to that model."""
    reply: Callable[[Request, int], str] | None = None
    """For estimates: makes up a usable reply of that model, given its number."""


def reading(config: RunConfig) -> Reading:
    """How a run reads n-grams."""
    return cast(Reading, _method(READINGS[config[Sasc].reading]))


def summariser(config: RunConfig) -> Method[Summariser]:
    """Who says what n-grams share in a run."""
    return cast(Method[Summariser], _method(SUMMARISERS[config[Sasc].explainer]))


def synthesizer(config: RunConfig) -> Method[Synthesizer]:
    """Where the texts of a run come from."""
    return cast(Method[Synthesizer], _method(SYNTHESIZERS[config[Sasc].synthesizer]))


def _method(path: str) -> Any:
    return import_module(path).METHOD
