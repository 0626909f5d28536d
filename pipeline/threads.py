"""Work shared out to threads."""

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from threading import Lock, Thread

import torch

ALIGNED = 64
"""Units of a thread are a multiple of this, so that no two threads write to one cache line."""

_USED = Lock()
"""Held while work is shared out, as helpers do one work at a time."""

Work = tuple[int, Callable[[int, int], None]]
"""How many pieces there are, and what is done with the pieces first..last. Ranges must not depend on each other."""


class Helper:
    """A thread that does one piece of work after another. Two locks hand it over in half the time that an executor takes."""

    def __init__(self) -> None:
        self._ready, self._done = Lock(), Lock()
        self._ready.acquire()
        self._done.acquire()
        self._work: Callable[[], None] = lambda: None
        self._error: Exception | None = None
        Thread(target=self._run, name="recorder", daemon=True).start()

    def begin(self, work: Callable[[], None]) -> None:
        """Let it work; `finish` must be called before the next `begin`."""
        self._work = work
        self._ready.release()

    def finish(self) -> Exception | None:
        """Wait until it is done; gives what the work raised."""
        self._done.acquire()
        return self._error

    def _run(self) -> None:
        while True:
            self._ready.acquire()
            self._error = None
            try:
                self._work()
            except Exception as error:  # noqa: BLE001  (share_out raises it)
                self._error = error
            self._work = lambda: None
            self._done.release()


def share_out(*works: Work) -> None:
    """Give each of torch's threads one range of the pieces of every work, one work after the other; they should give up the GIL."""
    threads = torch.get_num_threads()

    def take(number: int) -> None:
        for count, work in works:
            share = -(-count // threads)
            if number * share < count:
                work(number * share, min((number + 1) * share, count))

    with _USED:
        helpers = _helpers(threads - 1)
        for number, helper in enumerate(helpers, 1):
            helper.begin(partial(take, number))
        try:
            take(0)
        finally:
            errors = _finish(helpers)
    for error in errors:
        raise error


def _finish(helpers: Sequence[Helper]) -> list[Exception]:
    """Wait for all of them; gives what they raised."""
    try:
        return [error for error in [helper.finish() for helper in helpers] if error is not None]
    except BaseException:  # Ctrl-C while waiting: who has not been waited for must not be given work again
        _helpers.cache_clear()
        raise


def by_units(width: int, work: Callable[[int, int], None]) -> Work:
    """Work on `width` units, a multiple of ALIGNED of them on each thread but the last one."""
    return -(-width // ALIGNED), lambda first, last: work(first * ALIGNED, min(last * ALIGNED, width))


@cache
def _helpers(count: int) -> list[Helper]:
    return [Helper() for _ in range(count)]


# Threads do not live on in a fork.
os.register_at_fork(after_in_child=_helpers.cache_clear)
