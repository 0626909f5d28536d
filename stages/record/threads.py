"""Work shared out to threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

ALIGNED = 64
"""Units of a thread are a multiple of this, so that no two threads write to one cache line."""

Work = tuple[int, Callable[[int, int], None]]
"""How many pieces there are, and what is done with the pieces first..last. Ranges must not depend on each other."""


def share_out(*works: Work) -> None:
    """Give each of torch's threads one range of the pieces of every work, one work after the other; they should give up the GIL."""
    threads = torch.get_num_threads()

    def take(number: int) -> None:
        for count, work in works:
            share = -(-count // threads)
            if number * share < count:
                work(number * share, min((number + 1) * share, count))

    others = [_pool(threads - 1).submit(take, number) for number in range(1, threads)]
    take(0)
    for other in others:
        other.result()


def by_units(width: int, work: Callable[[int, int], None]) -> Work:
    """Work on `width` units, a multiple of ALIGNED of them on each thread but the last one."""
    return -(-width // ALIGNED), lambda first, last: work(first * ALIGNED, min(last * ALIGNED, width))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="recorder")
