"""Python callables that a run file names, and what is said of them when they fail."""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.config import BlackBox
from pipeline.errors import UserError, nearest


def open_function(module: str, box: BlackBox) -> Callable[[list[str]], Any]:
    """The function of a black box, made by its factory where it has one.

    Args:
        module: for messages, what it is called in the run file.

    Raises:
        UserError: it is not there, or the factory does not make one of the arguments.
    """
    factory: Callable[..., Any] = load_function(module, box.call)
    if box.arguments is None:
        return factory
    try:
        made: Any = factory(**box.arguments)
    except MemoryError:
        raise
    except UserError as error:
        raise UserError(f"{module}: {error}") from error
    except Exception as error:
        raise UserError(
            f"{module}: {box.call} raised {told(error)} when it was called with subject.black_boxes.{module.partition(':')[2]}."
            "arguments; correct them, or leave them out where it is the function itself"
        ) from error
    return _callable(
        made,
        f"{module}: {box.call} gave",
        "for its arguments, expected a function; leave them out for the function itself",
    )


def at_once(function: Callable[[list[str]], Any], texts: int) -> Callable[[list[str]], Any]:
    """The function, which says that it is best given so many texts at a time where the run file does not tell."""
    function.batch_size = texts  # type: ignore[attr-defined]
    return function


def load_function(module: str, call: str) -> Callable[[list[str]], Any]:
    """Import a function; the working directory is importable.

    Args:
        module: for messages, what it is called in the run file.
        call: `package.module:function`.

    Raises:
        UserError: it cannot be imported, or there is no such function in it.
    """
    place, _, path = call.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{module}: {place} cannot be imported ({told(error)}); put it into the working directory {os.getcwd()}, "
            "install it, or correct subject.black_boxes"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            have = nearest(name, [known for known in vars(found) if not known.startswith("_")])
            raise UserError(f"{module}: {call} is not there, as {place} has no {name!r}; {have}")
        found = getattr(found, name)
    return _callable(found, f"{module}: {call} is", "and cannot be called; name a function")


def _callable(found: Any, what: str, advice: str) -> Callable[[list[str]], Any]:
    if not callable(found):
        raise UserError(f"{what} {shown(found)} {advice}")
    function: Callable[[list[str]], Any] = found
    return function


def told(error: BaseException) -> str:
    """An exception with the place in the user's code that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(__file__).parent
    theirs = [frame for frame in frames if Path(frame.filename).parent != ours and not frame.filename.startswith("<")]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
    return f"{type(error).__name__}: {error}{where}"


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class TooSlow(BaseException):
    """A call took longer than it may; no Exception, so that what is called does not take it for an error of its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow where a block takes longer.

    It is interrupted where that can be done: in the main thread, on systems with SIGALRM, and as soon as Python code runs
    or a wait ends. Elsewhere its end is waited for.
    """
    started = time.monotonic()
    interrupts = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop) if interrupts else None
    try:
        if interrupts:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        if interrupts:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    if time.monotonic() - started > seconds:
        raise TooSlow
