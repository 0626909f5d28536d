"""Several questions at once, none of which is given up for another one's error, as each answer is paid for."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from pipeline.llm.engine import EngineError

T = TypeVar("T")


async def together(questions: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, in order; returns or raises when all have come to an end.

    Raises:
        The first error that is more than one request's own, else the first EngineError.
    """
    found = await asyncio.gather(*questions, return_exceptions=True)
    errors = [answer for answer in found if isinstance(answer, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, EngineError)):
        raise error
    return [answer for answer in found if not isinstance(answer, BaseException)]
