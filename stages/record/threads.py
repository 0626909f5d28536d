"""Work shared out to threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

ALIGNED = 64
"""Units of a thread are a multiple of this, so that no two threads write to one cache line."""


def over_units(width: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for consecutive ranges of `width` units, one range for each of torch's threads.

    What is computed of a unit must not depend on the other units of its range. `work` should give up the GIL.
    """
    share_out(-(-width // ALIGNED), lambda first, last: work(first * ALIGNED, min(last * ALIGNED, width)))


def share_out(count: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for consecutive ranges of `count` pieces of work, one range for each of torch's threads."""
    threads = torch.get_num_threads()
    share = max(-(-count // threads), 1)
    ranges = [(first, min(first + share, count)) for first in range(0, count, share)]
    others = [_pool(threads - 1).submit(work, *part) for part in ranges[1:]]
    for part in ranges[:1]:
        work(*part)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="recorder")
