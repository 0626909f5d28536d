"""Attempts at a unit: an explanation that somebody types is simulated, a text is read by the subject.

What carries them out is handed in, as it is the business of stages; here it gets a thread, as models answer slowly and one at a time.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError
from pipeline.execution.stage import Unit

Json = dict[str, Any]
T = TypeVar("T")


class Attempts(Protocol):
    """What the server can be asked to try on the units of a run."""

    async def simulate(self, unit: Unit, explanation: str) -> Json:
        """Expected activations on the unit's exemplars, and their correlation with the true ones."""
        ...

    async def activations(self, unit: Unit, text: str) -> Json:
        """The unit's activations on a text."""
        ...

    async def aclose(self) -> None:
        """Give back what was opened."""
        ...


class _OfUnit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    module: str = Field(max_length=500)
    index: int = Field(ge=0, lt=2**31)
    polarity: Literal["+", "-"] = "+"

    @property
    def unit(self) -> Unit:
        return self.module, self.polarity, self.index


class AskedSimulation(_OfUnit):
    """An explanation to try."""

    explanation: str = Field(min_length=1, max_length=2_000)


class AskedToKeep(AskedSimulation):
    """An explanation to save, for the next run to score."""


class AskedActivations(_OfUnit):
    """A text to try."""

    text: str = Field(min_length=1, max_length=20_000)


Asked = TypeVar("Asked", bound=_OfUnit)


def read_asked(kind: type[Asked], body: bytes) -> Asked:
    """The body of a request. Raises UserError where it is no JSON of that kind."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise UserError(f"{place}: {first['msg']}; /api/openapi.json describes the body") from None


class AttemptThread:
    """Carries out attempts in a thread of its own, one after the other.

    What a run needs is opened when something is first tried on it, and given back when another run is tried, as models are large.
    """

    def __init__(self) -> None:
        self._opener: Callable[[], Attempts] | None = None
        self._made: Attempts | None = None
        self._loop = asyncio.new_event_loop()
        self._turn = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="attempts", daemon=True)
        self._thread.start()

    async def simulate(self, opener: Callable[[], Attempts], unit: Unit, explanation: str) -> Json:
        """See `Attempts`; `opener` opens those of the run."""
        return await self._in_thread(opener, lambda made: made.simulate(unit, explanation))

    async def activations(self, opener: Callable[[], Attempts], unit: Unit, text: str) -> Json:
        """See `Attempts`; `opener` opens those of the run."""
        return await self._in_thread(opener, lambda made: made.activations(unit, text))

    async def aclose(self) -> None:
        """End the thread, and give back what was opened."""

        async def in_turn() -> None:
            async with self._turn:
                await self._give_back()

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_turn(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _give_back(self) -> None:
        if self._made is not None:
            made, self._made = self._made, None
            await made.aclose()

    async def _in_thread(self, opener: Callable[[], Attempts], work: Callable[[Attempts], Coroutine[Any, Any, T]]) -> T:
        async def in_turn() -> T:
            async with self._turn:
                if self._made is None or self._opener is not opener:
                    await self._give_back()
                    self._made, self._opener = opener(), opener
                return await work(self._made)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_turn(), self._loop))
